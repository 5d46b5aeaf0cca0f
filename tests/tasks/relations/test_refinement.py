"""What a model writes, read as a label or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.refinement import refine_answer
from retrograd.tasks.relations.verbalisation import open_verbalisation
from retrograd.types import Example

PHRASES = {
    "part": ["part of whole"],
    "whole": ["part of whole reversed"],
    "cause": ["leads to result"],
    "other": ["other"],
    "c++": ["C++"],
    "c": ["c"],
    "member": ["member of"],
    "board": ["member of board"],
    "name": ["also called"],
    "short": ["founded by"],
    "long": ["org:founded_by"],
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
        ("**_Part_of_whole_**", "part", "punctuation"),
        ("Relation： Part\u200b of ｗhole", "part", "after colon"),
        ("Relation: org:founded_by", "long", "contained"),
        ("It is not: part of whole", None, "ambiguous"),
        ("leads to result: part of whole", None, "ambiguous"),
        ("leads to result: other", None, "ambiguous"),
        ("Relations: part of whole; leads to result; other. Relation: part of whole", None, "ambiguous"),
        ("leads to result\n\nSentence: next one.\nRelation: part of whole", None, "ambiguous"),
        ("other\n\nSentence: next one.\nRelation: part of whole", None, "ambiguous"),
        ("either part of whole or other", None, "ambiguous"),
        ("None of them: other", None, "nothing"),
        ("the reverse of part of whole", None, "ambiguous"),
        ("part of whole, in the opposite direction", None, "ambiguous"),
        ("It is a member of the board", None, "ambiguous"),
        ("anything rather than part of whole", None, "ambiguous"),
        ("This isnt part of whole", None, "ambiguous"),
        ("This isnʼt part of whole", None, "ambiguous"),
        ("This isn`t part of whole", None, "ambiguous"),
        ("a non-part of whole", None, "ambiguous"),
        ("❌ part of whole", None, "ambiguous"),
        ("≠ part of whole", None, "ambiguous"),
    ],
)
def test_rules(answer: str, label: str | None, rule: str) -> None:
    """Two labels with equal words ("C++" and "c") are told apart by neither."""
    found = refine_answer(answer, PHRASES)
    assert (found.label, found.rule) == (label, rule)


def test_vowel_signs_are_part_of_a_word() -> None:
    assert refine_answer("के।", {"a": ["का"]}).label is None
    assert refine_answer("का।", {"a": ["का"], "b": ["के"]}).label == "a"


def test_words_that_the_sentence_has_may_be_a_quotation() -> None:
    """An entity's name is in the sentence, too."""
    quoted = "Ann, also called Annie, left"
    assert refine_answer(quoted, PHRASES).label == "name"
    assert refine_answer(quoted, PHRASES, sentence="Ann , also called Annie , left the house .").rule == "nothing"
    assert refine_answer("Answer: also called", PHRASES, sentence="Ann , also called Annie , left .").label == "name"
    assert (
        refine_answer("I say also called, part of whole", PHRASES, sentence="Ann, also called Annie").rule
        == "ambiguous"
    )
    assert refine_answer("The band Part of Whole", PHRASES, sentence="Part of Whole played in Rome .").rule == "nothing"


def test_what_is_said_of_the_tail_is_not_said_of_the_head() -> None:
    names = {"head": "the car", "tail": "wheel"}
    assert refine_answer("The wheel is part of whole, the car.", PHRASES, **names).rule == "ambiguous"
    assert refine_answer("The car is part of whole, the wheel.", PHRASES, **names).label == "part"
    assert refine_answer("Of the wheel and the car: part of whole", PHRASES, **names).label == "part"


def test_order_of_the_labels_changes_nothing() -> None:
    answers = ["The relation is part of whole reversed.", "part of whole", "leads to result part of whole"]
    backwards = dict(reversed(PHRASES.items()))
    assert [refine_answer(one, PHRASES) for one in answers] == [refine_answer(one, backwards) for one in answers]


@pytest.mark.parametrize("source", ["builtin:tacred", "builtin:retacred", "builtin:semeval2010_task8"])
def test_every_phrase_reads_as_its_own_label_however_it_is_dressed(source: str) -> None:
    """No phrase of the real label sets is a part of another one that would be read in its place."""
    verbalisation = open_verbalisation(source)
    phrases = {label: [phrase] for label, phrase in verbalisation.phrases.items()}
    for label, phrase in verbalisation.phrases.items():
        assert refine_answer(f"'{phrase.upper()}'.", phrases).label == label
        assert refine_answer(f"Relation: {phrase}", phrases).label == label
        if len(phrase.split()) > 1:
            assert refine_answer(f"I think it says {phrase} here", phrases).label == label


@given(st.text())
def test_any_text_is_read(answer: str) -> None:
    found = refine_answer(answer, PHRASES)
    assert (found.label is None) == (found.rule in ("ambiguous", "nothing"))


@pytest.mark.parametrize("style", ["phrase", "sentence"])
def test_the_task_takes_no_word_of_the_sentence_for_an_answer(style: str) -> None:
    """Its own sentence and names, in both styles of target, whatever words the names hold."""
    task = replace(RelationExtraction.semeval(), target_style=style)
    example = Example("1", "The @ group of members @ heard of # part of whole # .")
    for label, sentence in task.verbalisation.sentences("group of members", "part of whole").items():
        assert task.read_answer(f"'{sentence}'", example).label == label
        assert task.read_answer(f"I would say that {sentence} here", example).label in (label, None)
    for answer in ("The group of members heard of part of whole", "the group of members", "a part of whole thing"):
        assert task.read_answer(answer, example).label is None
    assert task.read_answer("part of whole", Example("2", "no entity is marked")).label == "Component-Whole(e1,e2)"


def test_the_task_counts_invalid_and_refined_answers_apart() -> None:
    task = RelationExtraction.semeval()
    phrase = task.verbalise("Cause-Effect(e1,e2)")
    example = Example("1", "The @ rain @ caused the # flood # .", (phrase,))
    scores = task.score([example] * 4, [phrase, f"Relation: {phrase}", "no idea", ""])
    assert (scores["invalid_rate"], scores["refined_rate"], scores["accuracy"]) == (50.0, 25.0, 50.0)
