"""Fields by paths: names with any signs, JMESPath, and what is said of a path that is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrograd.data.field_maps import DialogueFields, QuestionFields, map_record, map_records
from retrograd.types import UserError

RECORD = {
    "Question text": "who ?",
    "a.b": "plain",
    "answers (all of them": "odd",
    "a": {"b": "nested"},
    "output": [{"answer": "Ann"}, {"other": 1}, {"answer": "A. Lee"}],
}


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("Question text", "who ?"),
        ("a.b", "plain"),
        ("answers (all of them", "odd"),
        ("a | b", "nested"),
        ("output[*].answer", ["Ann", "A. Lee"]),
        ("output[0].answer", "Ann"),
        ("join(' ', output[*].answer)", "Ann A. Lee"),
    ],
)
def test_a_path_leads_to_a_value(path: str, expected: object) -> None:
    assert map_record(RECORD, QuestionFields(answers=path)) == {**RECORD, "answers": expected}


def test_a_path_that_leads_nowhere_leaves_the_record_as_it_is() -> None:
    for path in ("nothing", "a.nothing", "frage-1"):
        assert map_record(RECORD, QuestionFields(question=path)) == RECORD


def test_what_is_no_path_and_what_does_not_fit_is_refused() -> None:
    with pytest.raises(UserError, match=r"fields.answers is 'output\[', which is neither a field .*Incomplete"):
        map_record(RECORD, DialogueFields(answers="output["))
    with pytest.raises(UserError, match=r"fields.question = .*In function join.*invalid type"):
        map_record(RECORD, QuestionFields(question="join(' ', a)"))


def test_a_record_in_which_a_path_fails_is_refused_with_its_place_and_others_are_read() -> None:
    refused: list[UserError] = []
    records = [("line 1", 1, dict(RECORD)), ("line 2", 2, {"a": ["x", "y"]})]
    mapped = map_records(Path("f"), records, QuestionFields(question="join(' ', a)"), refused.append)
    assert [record["question"] for _, _, record in mapped] == ["x y"]
    assert str(refused[0]).startswith("f, line 1: fields.question = ")
