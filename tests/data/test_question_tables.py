"""Questions from the containers and layouts that people have them in: each file is made here, in the shape of one."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

import retrograd as rg
from retrograd.data.examples import GroundedExample
from retrograd.data.field_maps import QuestionFields
from retrograd.data.questions import read_questions
from retrograd.types import UserError

ANN = GroundedExample("1", "who wrote it ?", ("Ann", "A. Lee"))


def write(folder: Path, name: str, *lines: object) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "table",
    [
        "id,question,answers,note\n1,who wrote it ?,\"['Ann', 'A. Lee']\",\n",
        'id;Question;Answer\n1;who wrote it ?;"[""Ann"", ""A. Lee""]"\n',
        "question\tid\tgolden_answers\nwho wrote it ?\t1\t['Ann', 'A. Lee']\n",
    ],
)
def test_tables_with_a_header(table: str, tmp_path: Path) -> None:
    assert list(read_questions(write(tmp_path, "table.csv", table))) == [ANN]


def test_an_empty_cell_is_a_question_that_can_only_be_asked(tmp_path: Path) -> None:
    path = write(tmp_path, "table.csv", "id,question,answer", "1,who wrote it ?,")
    assert list(read_questions(path)) == [GroundedExample("1", "who wrote it ?")]


def test_parquet_as_hugging_face_has_squad(tmp_path: Path) -> None:
    record = {"id": "1", "question": "who wrote it ?", "answers": {"text": ["Ann", "A. Lee"], "answer_start": [1, 9]}}
    pyarrow.parquet.write_table(pa.Table.from_pylist([record]), tmp_path / "squad.parquet")
    assert rg.read_questions(tmp_path / "squad.parquet") == [ANN]


def test_kilt_and_its_pages(tmp_path: Path) -> None:
    pages = [{"wikipedia_id": 7, "start_paragraph_id": 2}, {"wikipedia_id": "9"}]
    outputs = [{"answer": "Ann", "provenance": pages}, {"answer": "A. Lee"}, {"provenance": pages[:1]}]
    records = [
        {"id": "1", "input": "who wrote it ?", "output": outputs, "meta": {}},
        {"id": "2", "input": "where ?", "output": [{"answer": ""}]},
    ]
    path = write(tmp_path, "kilt.jsonl", *records)
    gold = ("7", "9")
    assert list(read_questions(path)) == [GroundedExample("1", "who wrote it ?", ("Ann", "A. Lee"), gold)]
    assert [one.targets for one in read_questions(path, unanswerable="keep")][1] == ("cannot answer",)


def test_ms_marco_by_columns(tmp_path: Path) -> None:
    columns = {
        "query": {"10": "who wrote it ?", "11": "where ?"},
        "query_id": {"10": 1, "11": 2},
        "answers": {"10": ["Ann", "A. Lee"], "11": ["No Answer Present."]},
    }
    assert list(read_questions(write(tmp_path, "marco.json", columns))) == [ANN]


def test_a_beir_folder_by_the_table_of_a_part(tmp_path: Path) -> None:
    write(tmp_path, "queries.jsonl", *({"_id": f"q{i}", "text": f"what is {i} ?"} for i in range(3)))
    path = write(tmp_path, "qrels/test.tsv", "query-id\tcorpus-id\tscore", "q1\td4\t1", "q1\td5\t0", "q1\td6\t2")
    assert list(read_questions(path)) == [GroundedExample("q1", "what is 1 ?", (), ("d4", "d6"))]
    path = write(tmp_path, "qrels/dev.tsv", "query-id\tcorpus-id\tscore", "q1\td4\t1", "q8\td4\t1")
    with pytest.raises(UserError, match=r"dev.tsv: 1 of its queries, such as 'q8', are not in .*queries.jsonl"):
        list(read_questions(path))


def test_fields_by_a_map_from_any_container(tmp_path: Path) -> None:
    records = [{"nr": "1", "Kundenfrage (Text)": "who wrote it ?", "out": [{"t": "Ann"}, {"t": "A. Lee"}]}]
    paths = {"question": "Kundenfrage (Text)", "answers": "out[*].t", "id": "nr"}
    fields = QuestionFields(**paths)
    pyarrow.parquet.write_table(pa.Table.from_pylist(records), tmp_path / "t.parquet")
    for path in (write(tmp_path, "a.jsonl", *records), write(tmp_path, "b.json", records), tmp_path / "t.parquet"):
        assert list(read_questions(path, fields=fields)) == [ANN]
        assert rg.read_questions(path, fields=paths) == [ANN]
    assert rg.read_questions(records, fields=paths) == [ANN]
    with pytest.raises(UserError, match=r'data.format is "squad", which has no fields to be mapped'):
        list(read_questions(tmp_path / "a.jsonl", "squad", fields=fields))
    with pytest.raises(UserError, match="fields: unknown key 'questoin'; did you mean 'question'"):
        rg.read_questions(records, fields={"questoin": "nr"})


def test_a_map_that_leads_nowhere_is_a_fault_of_each_record(tmp_path: Path) -> None:
    path = write(tmp_path, "a.jsonl", {"frage": "who ?"}, {"frage": "what ?"})
    faults: list[UserError] = []
    assert not list(read_questions(path, refuse=faults.append, fields=QuestionFields(question="Frage")))
    assert [str(fault) for fault in faults] == [
        f"{path}, line {i}: no field 'question'; the record has frage" for i in (1, 2)
    ]
