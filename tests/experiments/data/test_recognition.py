"""What a file of data is taken for, by its first records, and what is shown of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.data.relations.samples import SAMPLES

from retrograd.__main__ import app
from retrograd.experiments.data.recognition import recognise_kind
from retrograd.studies.validation.validate import validate_files
from retrograd.types import UserError

HEADER_TSV = "id\ttext\ttitle\np\tThe dam was raised in 1921.\tThe dam\n"
SEMEVAL = '1\t"The <e1>cup</e1> holds <e2>tea</e2>."\nContent-Container(e2,e1)\nComment:\n'


def write(path: Path, *records: object) -> Path:
    texts = (one if isinstance(one, str) else json.dumps(one) + "\n" for one in records)
    path.write_text("".join(texts), "utf-8")
    return path


FILES = {
    "relations": (
        (SEMEVAL,),
        ({"text": "The cup holds tea.", "head": [4, 7], "tail": [14, 17], "relation": "holds"},),
        ({"tokens": ["A", "cup", "holds", "tea"], "head": [1, 2], "tail": [3, 4], "relation": "holds"},),
    ),
    "questions": (
        ({"question": "Who raised the dam?", "answers": ["Ann"]},),
        ({"input": "Who raised the dam?", "output": [{"answer": "Ann"}]},),
        ("question,answer\nWho raised the dam?,Ann\n",),
    ),
    "dialogue": (
        (
            {
                "messages": [
                    {"role": "user", "content": "Who raised the dam?"},
                    {"role": "assistant", "content": "Ann."},
                    {"role": "user", "content": "When?"},
                    {"role": "assistant", "content": "In 1921."},
                ]
            },
        ),
    ),
    "corpus": ((HEADER_TSV,), ({"id": "p", "text": "The dam was raised in 1921.", "title": "The dam"},)),
}


@pytest.mark.parametrize(
    ("kind", "records"), [(kind, records) for kind, each in FILES.items() for records in each], ids=str
)
def test_a_file_is_taken_for_what_it_holds(tmp_path: Path, kind: str, records: tuple[object, ...]) -> None:
    suffix = "csv" if str(records[0]).startswith("question,") else "tsv" if records[0] == HEADER_TSV else "jsonl"
    path = write(tmp_path / f"data.{suffix}", *records)
    assert recognise_kind(path) == kind
    validation = validate_files([path])
    (reading,) = validation.readings
    assert (reading.source, reading.kind) == (str(path), kind)
    assert reading.first, "the first record is shown"


def test_the_first_record_is_shown_as_it_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl", {"input": "Who raised the dam?", "output": [{"answer": "Ann"}, {"answer": "A."}]}
    )
    (reading,) = validate_files([path]).readings
    assert reading.format == "jsonl"
    assert dict(reading.first)["question"] == "Who raised the dam?"
    assert dict(reading.first)["answers"] == "Ann | A."


def test_a_map_changes_what_is_read(tmp_path: Path) -> None:
    path = write(
        tmp_path / "q.jsonl", {"ask": "Who raised the dam?", "told": "Ann", "question": "no", "answers": ["no"]}
    )
    changes = ["data.fields.question=ask", "data.fields.answers=told"]
    (reading,) = validate_files([path], None, "auto", changes).readings
    assert dict(reading.first) | {"id": ""} == {"id": "", "question": "Who raised the dam?", "answers": "Ann"}


def test_what_is_of_no_kind_is_refused_with_what_each_lacks(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", {"level": "info", "at": 7})
    with pytest.raises(UserError, match=r"seems to hold none of relations, .*--kind") as caught:
        recognise_kind(path)
    assert all(f"as {kind}: " in str(caught.value) for kind in ("relations", "questions", "corpus"))


def test_files_of_several_kinds_are_checked_beside_each_other(tmp_path: Path) -> None:
    asked = write(tmp_path / "q.jsonl", {"question": "Who raised the dam?", "answers": ["Ann"]})
    passages = write(tmp_path / "p.tsv", HEADER_TSV)
    validation = validate_files([asked, passages])
    assert [reading.kind for reading in validation.readings] == ["questions", "corpus"]
    assert {part.source for part in validation.parts} == {str(asked), str(passages)}


def test_a_map_and_windows_change_how_passages_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "p.jsonl", {"plot": "The dam broke.", "text": "no"}, {"plot": "Rain fell.", "text": "no"})
    (reading,) = validate_files([path], "corpus", "auto", ["data.base_fields.text=plot"]).readings
    assert dict(reading.first)["text"] == "The dam broke."
    folder = tmp_path / "handbook"
    folder.mkdir()
    (folder / "dam.txt").write_text("The dam broke. Rain fell.", encoding="utf-8")
    windows = ["data.base_windows.words=3", "data.base_windows.overlap=0"]
    validation = validate_files([folder], None, "auto", windows)
    (reading,) = validation.readings
    assert (reading.kind, reading.format) == ("corpus", "documents")
    assert dict(reading.first) == {"id": "dam.txt#0-14", "title": "dam", "text": "The dam broke."}
    assert [part.records for part in validation.parts] == [2]
    with pytest.raises(UserError, match=r"--set data\.fields\.question=q: passages are read by data\.base_, "):
        validate_files([path], "corpus", "auto", ["data.fields.question=q"])


def test_an_error_that_repeats_is_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records = [{"question": f"Who raised the dam {number}?", "answers": 7} for number in range(300)]
    path = write(tmp_path / "q.jsonl", *records)
    with pytest.raises(SystemExit) as stop:
        app(["validate", str(path), "--kind", "questions"], standalone_mode=True)
    assert stop.value.code == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("error")]
    assert "and 299 more" in line


@pytest.mark.parametrize("name", SAMPLES)
def test_files_of_relations_in_every_format_are_recognised(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.json"
    path.write_bytes(SAMPLES[name].content())
    assert recognise_kind(path) == "relations"
    (reading,) = validate_files([path]).readings
    assert (reading.kind, reading.format) == ("relations", SAMPLES[name].format)


def test_a_folder_of_annotations_is_recognised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Ada lives in Ulm.\n")
    (tmp_path / "a.ann").write_text("T1\tPER 0 3\tAda\nT2\tLOC 13 16\tUlm\nR1\tlives Arg1:T1 Arg2:T2\n")
    assert recognise_kind(tmp_path) == "relations"


RELATION = {"text": "The cup holds tea.", "head": "cup", "tail": "tea", "relation": "holds"}


@pytest.mark.parametrize(
    ("records", "kind"),
    [
        (({**RELATION, "text": "The cup in the cup holds tea."}, *[RELATION] * 3), "relations"),
        (({**RELATION, "text": "The cup in the cup holds tea."},) * 2, "relations"),
        (({**RELATION, "head": [40, 100], "tail": [2, 3]},), "relations"),
        (({"question": "Who?", "answers": ["Ann"]}, {"question": "", "answers": ["Ann"]}), "questions"),
        (({"question": 7, "text": "The dam broke."},), "questions"),
        (({"history": 7, "text": "The dam broke."},), "dialogue"),
    ],
    ids=str,
)
def test_malformed_records_do_not_make_a_file_another_kind(
    tmp_path: Path, records: tuple[object, ...], kind: str
) -> None:
    path = write(tmp_path / "data.jsonl", *records)
    assert recognise_kind(path) == kind
    assert validate_files([path]).findings.total("error") >= 1


def test_a_map_says_of_which_kind_its_file_is(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", "ask,told\nWho raised the dam?,Ann\n")
    changes = ["data.fields.question=ask", "data.fields.answers=told"]
    (reading,) = validate_files([path], changes=changes).readings
    assert (reading.kind, dict(reading.first)["answers"]) == ("questions", "Ann")
    assert recognise_kind(path, ["data.fields.head=ask"]) == "relations"
    assert recognise_kind(path, ["data.fields.history=ask", "data.fields.answers=told"]) == "dialogue"
    assert recognise_kind(path, ["data.base_fields.text=ask"]) == "corpus"


def test_a_column_of_labels_beside_two_entities_is_their_relation(tmp_path: Path) -> None:
    path = write(tmp_path / "table.csv", "text,head,tail,label\nThe cup holds tea.,cup,tea,holds\n")
    (reading,) = validate_files([path]).readings
    assert (reading.kind, dict(reading.first)["relation"]) == ("relations", "holds")
