"""Data of any format become JSON Lines that are read as the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.data.relations.samples import JSON_SAMPLES, Sample

import retrograd as rg
from retrograd.__main__ import app
from retrograd.studies.convert import convert
from retrograd.types import UserError


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("sample", JSON_SAMPLES, ids=lambda one: f"{one.format}: {one.name}")
def test_relations_say_the_same(sample: Sample, tmp_path: Path) -> None:
    source = tmp_path / "source.json"
    content = json.dumps(sample.records) if sample.is_whole else "\n".join(map(json.dumps, sample.records))
    source.write_text(content, encoding="utf-8")
    done = convert(source, tmp_path / "own.jsonl", "relations", sample.format)
    before, after = rg.read_relations(source, sample.format), rg.read_relations(done.file, "jsonl")
    assert done.records == len(after) > 0
    assert after == [replace(one, document=after[row].document) for row, one in enumerate(before)]


def test_questions_say_the_same(tmp_path: Path) -> None:
    records = [
        {"id": "a", "input": "Who raised the dam?", "output": [{"answer": "Ann"}, {"answer": "A. Lee"}]},
        {"id": "b", "input": "When?", "output": [{"answer": "1921", "provenance": [{"wikipedia_id": "7"}]}]},
    ]
    source = write(tmp_path / "kilt.jsonl", *records)
    done = convert(source, tmp_path / "own.jsonl")
    assert (done.kind, done.records, done.skipped) == ("questions", 2, 0)
    assert rg.read_questions(done.file) == rg.read_questions(source)


def test_a_question_without_an_answer_and_one_that_has_none_stay_so(tmp_path: Path) -> None:
    source = write(tmp_path / "q.jsonl", {"question": "Who?"}, {"question": "When?", "answers": []})
    own = convert(source, tmp_path / "own.jsonl").file
    for unanswerable in ("keep", "drop"):
        before = rg.read_questions(source, unanswerable=unanswerable)
        assert rg.read_questions(own, unanswerable=unanswerable) == before
    assert len(before) == 1


def test_dialogues_and_passages_say_the_same(tmp_path: Path) -> None:
    roles = ("user", "assistant", "user", "assistant")
    chat = [{"role": role, "content": f"turn {i}"} for i, role in enumerate(roles)]
    source = write(tmp_path / "chats.jsonl", {"messages": chat})
    done = convert(source, tmp_path / "turns.jsonl")
    assert done.kind == "dialogue"
    assert rg.read_dialogues(done.file) == rg.read_dialogues(source)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "dam.md").write_text("# The dam\n\nThe dam was raised in 1921. It holds.", encoding="utf-8")
    done = convert(
        tmp_path / "pages",
        tmp_path / "passages.jsonl",
        changes=["data.base_windows.words=6", "data.base_windows.overlap=2"],
    )
    assert done.kind == "corpus"
    passages = rg.read_passages(done.file)
    assert [passage.text for passage in passages] == ["The dam was raised in 1921.", "It holds."]
    assert passages == rg.read_passages(tmp_path / "pages", windows=rg.Windows(words=6, overlap=2))


def test_a_malformed_record_ends_it_or_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"question": "Who?", "answers": "Ann"}, {"question": 7}, *[{"question": []}] * 30]
    source, own = write(tmp_path / "q.jsonl", *records), tmp_path / "own.jsonl"
    with pytest.raises(UserError, match=r"q.jsonl, line 2"):
        convert(source, own, "questions")
    assert not own.exists()
    app(["convert", str(source), str(own), "--kind", "questions", "--skip-malformed"], standalone_mode=False)
    said = capsys.readouterr()
    assert f"1 records of questions in {own}; 31 malformed ones are left out" in said.out
    assert len(rg.read_questions(own)) == 1


def test_nothing_is_lost_by_a_wrong_name(tmp_path: Path) -> None:
    source = write(tmp_path / "q.jsonl", {"question": "Who?", "answers": "Ann"})
    with pytest.raises(UserError, match="choose another place"):
        convert(source, source)
    with pytest.raises(UserError, match=r"ends in \.jsonl"):
        convert(source, tmp_path / "q.csv")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "a.txt").write_text("The cup holds tea.", encoding="utf-8")
    with pytest.raises(UserError, match="choose another place"):
        convert(tmp_path / "pages", tmp_path / "pages" / "own.jsonl")
    with pytest.raises(UserError, match="no record that could be read"):
        convert(write(tmp_path / "e.jsonl", {"question": 7}), tmp_path / "own.jsonl", "questions", skip_malformed=True)
    assert len(rg.read_questions(source)) == 1
