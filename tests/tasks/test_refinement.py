"""What a model writes, read as a label or not at all."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.tasks.refinement import refined
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.verbalisation import open_verbalisation
from retrograd.types import Example

PHRASES = {
    "part": ["part of whole"],
    "whole": ["part of whole reversed"],
    "cause": ["leads to result"],
    "other": ["other"],
    "c++": ["C++"],
    "c": ["c"],
}


@pytest.mark.parametrize(
    ("answer", "label", "rule"),
    [
        ("**Part of whole.**", "part", "punctuation"),
        ("Relation: part of whole reversed", "whole", "after colon"),
        ("Sentence: it is so: other", "other", "after colon"),
        ("The relation is part of whole.", "part", "contained"),
        ("I would say part of whole reversed here", "whole", "contained"),
        ("part of whole, or rather leads to result", None, "ambiguous"),
        ("part of whole? part of whole reversed!", None, "ambiguous"),
        ("This is not part of whole", None, "ambiguous"),
        ("It isn't part of whole", None, "ambiguous"),
        ("The other relation", None, "nothing"),
        ("apart of wholes", None, "nothing"),
        ("part of", None, "nothing"),
        ("", None, "nothing"),
        ("C++!", None, "nothing"),
    ],
)
def test_rules(answer: str, label: str | None, rule: str) -> None:
    """Two labels with equal words ("C++" and "c") are told apart by neither."""
    found = refined(answer, PHRASES)
    assert (found.label, found.rule) == (label, rule)


def test_order_of_the_labels_changes_nothing() -> None:
    answers = ["The relation is part of whole reversed.", "part of whole", "leads to result part of whole"]
    backwards = dict(reversed(PHRASES.items()))
    assert [refined(one, PHRASES) for one in answers] == [refined(one, backwards) for one in answers]


@pytest.mark.parametrize("source", ["builtin:tacred", "builtin:retacred", "builtin:semeval2010_task8"])
def test_every_phrase_reads_as_its_own_label_however_it_is_dressed(source: str) -> None:
    """No phrase of the real label sets is a part of another one that would be read in its place."""
    verbalisation = open_verbalisation(source)
    phrases = {label: [phrase] for label, phrase in verbalisation.phrases.items()}
    for label, phrase in verbalisation.phrases.items():
        assert refined(f"'{phrase.upper()}'.", phrases).label == label
        assert refined(f"Relation: {phrase}", phrases).label == label
        if len(phrase.split()) > 1:
            assert refined(f"I think it says {phrase} here", phrases).label == label


@given(st.text())
def test_any_text_is_read(answer: str) -> None:
    found = refined(answer, PHRASES)
    assert (found.label is None) == (found.rule in ("ambiguous", "nothing"))


def test_the_task_counts_invalid_and_refined_answers_apart() -> None:
    task = RelationExtraction.semeval()
    phrase = task.verbalise("Cause-Effect(e1,e2)")
    example = Example("1", "The @ rain @ caused the # flood # .", (phrase,))
    scores = task.score([example] * 4, [phrase, f"Relation: {phrase}", "no idea", ""])
    assert (scores["invalid_rate"], scores["refined_rate"], scores["accuracy"]) == (50.0, 25.0, 50.0)
