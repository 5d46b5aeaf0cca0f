"""A file of another layout than its setting says is named so, for passages and examples of questions and dialogues."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest

from retrograd.data.passages import CORPUS_FORMATS
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.free_answers import DialogueBase, DialogueData, QuestionBase, QuestionData
from retrograd.types import UserError
from retrograd.util.text_files import raise_error

SQUAD = {"data": [{"title": "t", "paragraphs": [{"context": "the cup holds tea", "qas": []}]}]}
DOC2DIAL = {"doc_data": {"cups": {"d1": {"doc_text": "the cup holds tea"}}}}
LAYOUTS = {
    "jsonl": '{"id": "a", "text": "the cup holds tea"}\n{"id": "b", "text": "the box"}\n',
    "tsv": "id\ttext\n1\tthe cup holds tea\n",
    "csv": "id,text\n1,the cup holds tea\n",
    "collection": "1\tthe cup holds tea\n",
    "squad": json.dumps(SQUAD),
    "squad over lines": json.dumps(SQUAD, indent=1),
    "doc2dial": json.dumps(DOC2DIAL),
    "doc2dial over lines": json.dumps(DOC2DIAL, indent=1),
}
BASES = {
    QuestionData: ("auto", "jsonl", "tsv", "collection", "squad"),
    DialogueData: ("auto", "jsonl", "csv", "quac", "doc2dial"),
}
FORMATS = {QuestionData: get_args(QuestionBase), DialogueData: get_args(DialogueBase)}


def layout_in(kind: type[QuestionData | DialogueData], layout: str) -> str:
    name = layout.removesuffix(" over lines")
    return "quac" if kind is DialogueData and name == "squad" else name


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind, values in BASES.items() for value in values])
def test_a_base_of_another_layout_is_named_with_the_setting(
    kind: type[QuestionData | DialogueData], value: str, layout: str, tmp_path: Path
) -> None:
    path = tmp_path / "base"
    path.write_text(LAYOUTS[layout], encoding="utf-8")
    data, found = kind(base=str(path), base_format=value), layout_in(kind, layout)
    if found == value or (value == "auto" and found in CORPUS_FORMATS) or (value, found) == ("csv", "tsv"):
        assert next(iter(data.passages(path, raise_error))).text == "the cup holds tea"
        return
    with pytest.raises(UserError, match=rf'data\.base_format is "{value}", .* laid out as "{found}"; ') as raised:
        list(data.passages(path, raise_error))
    remedy = str(raised.value).partition("; ")[2]
    assert ", ".join(FORMATS[kind]) in remedy
    assert (f'set data.base_format = "{found}"' in remedy) == (found in FORMATS[kind])


@pytest.mark.parametrize("value", ["jsonl", "json", "tsv", "triviaqa", "squad"])
def test_examples_of_another_layout_are_named_with_the_setting(value: str, tmp_path: Path) -> None:
    lines = '{"question": "what ?", "answers": ["tea"]}\n'
    others = {
        "jsonl": 2 * lines,
        "json": f"[{lines}]",
        "tsv": "what ?\t['tea']\n",
        "triviaqa": json.dumps({"Data": [{"Question": "what ?", "Answer": {"Value": "tea", "Aliases": []}}]}),
        "squad": json.dumps({"data": [{"paragraphs": [{"context": "tea", "qas": [{"question": "what ?"}]}]}]}),
    }
    for layout, text in others.items():
        path = tmp_path / layout
        path.write_text(text, encoding="utf-8")
        data = QuestionData(format=value)
        if layout == value or (value, layout) == ("json", "triviaqa"):  # which is a list of records in an object
            assert len(list(data.examples(path))) == (2 if layout == "jsonl" else 1)
            continue
        with pytest.raises(UserError, match=rf'data\.format is "{value}", .* laid out as "{layout}"; set data\.format'):
            list(data.examples(path))


def test_dialogues_of_another_layout_are_named_with_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "turns"
    path.write_text('{"history": ["what ?"], "answer": "tea"}\n' * 2, encoding="utf-8")
    for value in ("quac", "doc2dial"):
        with pytest.raises(UserError, match=rf'data\.format is "{value}", .* laid out as "jsonl"; set data\.format'):
            list(DialogueData(format=value).examples(path))


def test_an_unknown_layout_is_told_with_the_values_of_the_setting(tmp_path: Path) -> None:
    path = tmp_path / "notes.dat"
    path.write_text("the cup holds tea\n", encoding="utf-8")
    for value in BASES[DialogueData]:
        with pytest.raises(UserError, match=rf'data\.base_format is "{value}", of auto, jsonl, .*, quac, doc2dial'):
            list(DialogueData(base_format=value).passages(path, raise_error))


def test_a_malformed_record_of_the_right_layout_is_still_a_fault_of_the_record(tmp_path: Path) -> None:
    path = tmp_path / "base.jsonl"
    path.write_text('{"id": "x"}\n{"id": "a", "text": "tea"}\n{"id": "b"}\n', encoding="utf-8")
    findings = Findings()
    passages = QuestionData(base_format="jsonl").passages(path, findings.refusing("base", str(path)))
    assert [passage.id for passage in passages] == ["a"]
    assert [found.place.rpartition(":")[2] for found in findings.shown] == ["1", "3"]
    assert not any("base_format" in found.what + found.remedy for found in findings.shown)
    for source, advice in ((tmp_path / "none.jsonl", "no such file"), (path, "no text")):
        with pytest.raises(UserError, match=advice) as raised:
            list(QuestionData(base_format="squad" if source != path else "auto").passages(source, raise_error))
        assert "base_format" not in str(raised.value)
