"""Words for relations: complete, one to one, ours to replace, and wrong files say what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.relations.tacred import RETACRED_LABELS, TACRED_LABELS
from retrograd.metrics.relations import SEMEVAL_LABELS
from retrograd.metrics.words import fold
from retrograd.tasks.relations.verbalisation import (
    BUILTIN_TEMPLATES,
    Verbalisation,
    derive_phrases,
    open_verbalisation,
    words_of,
)
from retrograd.types import UserError

LABELS = {"tacred": TACRED_LABELS, "retacred": RETACRED_LABELS, "semeval2010_task8": SEMEVAL_LABELS}
NAMES = st.text(alphabet="aB {}\\subject", min_size=1, max_size=12).filter(str.strip)


@pytest.mark.parametrize("source", BUILTIN_TEMPLATES)
def test_packaged_words_are_complete_and_part_early(source: str) -> None:
    found = open_verbalisation(source)
    labels = LABELS[source.removeprefix("builtin:")]
    found.require(labels, source, exactly=True)
    assert len(found.phrases) == len(labels)
    # A generator of phrases decides at the first word; sentences share their subject and part after it.
    assert len({phrase.split()[0] for phrase in found.phrases.values()}) == len(labels)
    assert all(template.startswith("{subject} ") for template in found.templates.values())


@pytest.mark.parametrize("source", BUILTIN_TEMPLATES)
@given(subject=NAMES, object_=NAMES)
def test_filled_sentences_are_all_different_and_hold_both_names(source: str, subject: str, object_: str) -> None:
    found = open_verbalisation(source)
    sentences = found.sentences(subject, object_)
    assert list(sentences) == list(found.phrases)
    assert len({fold(sentence) for sentence in sentences.values()}) == len(sentences)
    for sentence in sentences.values():
        assert sentence.startswith(" ".join(subject.split()) + " ")
        assert " ".join(object_.split()) in sentence


def test_names_are_filled_in_once_and_literally() -> None:
    found = Verbalisation({"a": "leads"}, {"a": "{object} is led by {subject}"})
    assert found.sentences("{object}", "x\n {subject} \\1") == {"a": "x {subject} \\1 is led by {object}"}


def test_equal_sentences_are_told_by_their_phrases() -> None:
    found = Verbalisation(
        {"up": "leads", "down": "is led", "other": "apart"},
        {"up": "{subject} leads {object}", "down": "{object} leads {subject}", "other": "{subject}, {object}"},
    )
    assert found.sentences("Ann", "Bo")["down"] == "Bo leads Ann"
    assert found.sentences("Ann", "ann") == {"up": "leads", "down": "is led", "other": "Ann, ann"}


@pytest.mark.parametrize("templates", [{}, {"a b": "{subject} x {object}", "c": "{subject} y {object}"}])
def test_a_record_comes_back_in_its_order(templates: dict[str, str]) -> None:
    found = Verbalisation({"c": "see", "a b": "ab"}, templates)
    again = Verbalisation.from_record(json.loads(json.dumps(found.to_record())), "labels.json")
    assert again == found
    assert list(again.phrases) == ["c", "a b"]


GOOD = '["a:b"]\nphrase = "x"\ntemplate = "{subject} x {object}"\n'


def test_a_file_of_ones_own_is_read(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text("# mine\n" + GOOD, encoding="utf-8")
    assert open_verbalisation(str(path)) == Verbalisation({"a:b": "x"}, {"a:b": "{subject} x {object}"})


@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("[a:b]\n", r"mine.toml: not valid TOML: .*line 1"),
        (GOOD + GOOD, r"not valid TOML: .*line 4"),
        ("", "mine.toml: relation extraction without labels; give at least one"),
        ('a = "x"\n', "mine.toml: 'a' is 'x'; expected a table with phrase and template"),
        ('[a.b]\nphrase = "x"\n', "mine.toml: 'a': unknown key 'b'.*Quote a label that holds a dot"),
        ('[a]\nphrase = "x"\ntemplat = "y"\n', "mine.toml: 'a': unknown key 'templat'; did you mean 'template'"),
        ("[a]\nphrase = 1\n", "mine.toml: 'a': phrase is 1; expected text in quotes"),
        ('[a]\ntemplate = "{subject} {object}"\n', "mine.toml: 'a': no phrase; give it a few words"),
        ('[a]\nphrase = "x"\n', "mine.toml: no label has a template; write one as"),
        (GOOD + '[c]\nphrase = "y"\n', "mine.toml: 'c' has a phrase and no template; give every label one"),
        (GOOD + '[c]\nphrase = "X "\ntemplate = "{subject} {object}"\n', "'a:b' and 'c' share the phrase 'X '"),
        (GOOD + '[c]\nphrase = "y"\ntemplate = "{subject} X  {object}"\n', "'a:b' and 'c' share the template"),
        ('[c]\nphrase = " "\ntemplate = "{subject} {object}"\n', "the phrase of 'c' is empty"),
        ('[c]\nphrase = "y"\ntemplate = "{subject} x"\n', r"the template of 'c' has \{object\} 0 times.*write it once"),
        ('[c]\nphrase = "y"\ntemplate = "{subject} {object} {object}"\n', r"\{object\} 2 times"),
        ('[c]\nphrase = "y"\ntemplate = "{subj} {object}"\n', r"unknown slot \{subj\}; did you mean 'subject'"),
    ],
)
def test_wrong_files_say_what_to_do(tmp_path: Path, text: str, advice: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text or "# nothing\n", encoding="utf-8")
    with pytest.raises(UserError, match=advice):
        open_verbalisation(str(path))


def test_unknown_and_missing_labels_are_named() -> None:
    found = Verbalisation({"per:age": "aged", "per:titel": "bears"})
    found.require(["per:age"], "mine.toml")
    with pytest.raises(UserError, match=r"mine.toml: the label 'per:title' is missing; did you mean 'per:titel'"):
        found.require(["per:age", "per:title"], "mine.toml")
    with pytest.raises(UserError, match=r"mine.toml: unknown label 'per:titel'.*Remove or rename"):
        found.require(["per:age"], "mine.toml", exactly=True)
    with pytest.raises(UserError, match="no built-in templates 'builtin:tacret'; did you mean 'builtin:tacred'"):
        open_verbalisation("builtin:tacret")
    with pytest.raises(UserError, match="the template of 'b' has no phrase"):
        Verbalisation({"a": "x"}, {"b": "{subject} {object}"})


@pytest.mark.parametrize(
    ("label", "phrase"),
    [
        ("org:founded_by", "org founded by"),
        ("Cause-Effect(e1,e2)", "cause effect"),
        ("Cause-Effect(e2,e1)", "cause effect reversed"),
        ("Cause-Effect(e2,e2)", "cause effect e2 e2"),
        ("/people/person/place_of_birth", "people person place of birth"),
        ("INDIRECT-DOWNREGULATOR", "indirect downregulator"),
        ("bornIn", "born in"),
        ("???", "relation"),
    ],
)
def test_derived_phrases_read_well(label: str, phrase: str) -> None:
    assert derive_phrases([label]) == {label: phrase}


def test_equal_words_get_a_number() -> None:
    assert derive_phrases(["a_b", "a-b", "a_b_2"]) == {"a-b": "a b", "a_b": "a b 2", "a_b_2": "a b 2 2"}


def test_words_of_a_type() -> None:
    assert words_of("STATE_OR_PROVINCE") == "state or province"
