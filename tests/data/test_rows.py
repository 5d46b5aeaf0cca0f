"""Records in every container: what is read of it, and what is said of one that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data.reading import read_any

from retrograd.data.rows import ROW_KINDS, first_rows, read_rows, row_kind
from retrograd.types import UserError
from retrograd.util.guards import JsonObject

NAMES = ("question", "answers")
RECORDS: list[JsonObject] = [
    {"id": "a", "question": "what is it , and where ?", "answers": ["tea", "a cup"]},
    {"id": "b", "question": "who ?", "answers": ["Ann"]},
]
TEXTS = {
    "lines.jsonl": "\n".join(map(json.dumps, RECORDS)),
    "one.jsonl": json.dumps(RECORDS[0]),
    "list.json": json.dumps(RECORDS, indent=1),
    "named.json": json.dumps({"version": 1, "data": RECORDS}),
    "by_id.json": json.dumps({one["id"]: {name: one[name] for name in NAMES} for one in RECORDS}, indent=1),
    "columns.json": json.dumps({name: [one[name] for one in RECORDS] for name in RECORDS[0]}),
    "by_row.json": json.dumps({name: {f"{i}": one[name] for i, one in enumerate(RECORDS)} for name in RECORDS[0]}),
}
TABLE = 'id{0}question{0}note\na{0}"what{0} it\n""is"" ?"{0}\n\nb{0}who ?{0}x\n'


def rows(path: Path, names: tuple[str, ...] = NAMES) -> list[JsonObject]:
    return [record for _, _, record in read_rows(path, names)]


@pytest.mark.parametrize("name", TEXTS)
def test_records_of_json(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(TEXTS[name], encoding="utf-8")
    assert rows(path) == (RECORDS[:1] if name == "one.jsonl" else RECORDS)
    assert first_rows(path, NAMES) == RECORDS[:1]


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_records_of_a_table(delimiter: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_text(TABLE.format(delimiter), encoding="utf-8")
    first = {"id": "a", "question": f'what{delimiter} it\n"is" ?', "note": None}
    assert rows(path) == [first, {"id": "b", "question": "who ?", "note": "x"}]
    assert [place for place, _, _ in read_rows(path)] == ["line 2", "line 5"]


def test_records_of_arrow(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(RECORDS * 3_000)
    parquet, file, stream = (tmp_path / name for name in ("a.parquet", "b.arrow", "c.arrow"))
    pyarrow.parquet.write_table(table, parquet)
    saved = tmp_path / "saved"
    saved.mkdir()
    (saved / "dataset_info.json").write_text("{}", encoding="utf-8")
    for path, write in (
        (file, pa.ipc.new_file),
        (stream, pa.ipc.new_stream),
        (saved / "data-0.arrow", pa.ipc.new_stream),
    ):
        with write(str(path), table.schema) as writer:
            writer.write_table(table)
    for path in (parquet, file, stream, saved):
        assert rows(path) == RECORDS * 3_000
    assert [row_kind(path) for path in (parquet, file, stream, saved)] == ["parquet", "arrow", "arrow", "arrow"]
    parquet.write_bytes(parquet.read_bytes()[:-30])
    stream.write_bytes(stream.read_bytes()[:300])
    for path in (parquet, stream):
        with pytest.raises(UserError, match="damaged"):
            rows(path)


def test_numbers_of_classes_are_read_as_their_names(tmp_path: Path) -> None:
    features = {"relation": {"names": ["holds", "part-of"], "_type": "ClassLabel"}, "text": {"dtype": "string"}}
    noted = {"huggingface": json.dumps({"info": {"features": features}})}
    table = pa.table({"relation": [1, 0, -1, None], "text": ["a", "b", "c", "d"]}).replace_schema_metadata(noted)
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    with pa.ipc.new_stream(str(tmp_path / "b.arrow"), table.schema) as writer:
        writer.write_table(table)
    for name in ("a.parquet", "b.arrow"):
        assert [row["relation"] for row in rows(tmp_path / name)] == ["part-of", "holds", -1, None]


@pytest.mark.parametrize(
    "noted", ["{", "[]", '{"info": 3}', '{"info": {"features": {"relation": {"names": 3}}}}', "\xff"]
)
def test_notes_of_another_shape_are_not_read(noted: str, tmp_path: Path) -> None:
    table = pa.table({"relation": [1]}).replace_schema_metadata({"huggingface": noted.encode("latin-1")})
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert rows(tmp_path / "a.parquet") == [{"relation": 1}]


def test_a_folder_of_splits_names_them(tmp_path: Path) -> None:
    for split in ("test", "train"):
        (tmp_path / split).mkdir()
        (tmp_path / split / "dataset_info.json").write_text("{}", encoding="utf-8")
    (tmp_path / "dataset_dict.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"the splits test, train; give one of them, as .*test"):
        row_kind(tmp_path)
    with pytest.raises(UserError, match="no dataset that was saved"):
        row_kind(tmp_path.parent)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a,b\n1,2,3\n", "line 2: 3 cells, and the first line names 2 columns"),
        ("a,a\n1,2\n", "two columns are named 'a'"),
        ('a,b\n1,"2\n', "line 2: .*close the quotation mark"),
        ('{"data": [{"a": 1}], "more": [{"a": 1}]}', "with the lists data, more"),
        ("[]", "empty list"),
        ("\r0,b", "line 1: new-line character"),
        ('"a,b\n1,2\n', "line 1: unexpected end of data"),
    ],
)
def test_what_cannot_be_read_is_named(content: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(UserError, match=said):
        rows(path)


@given(st.lists(st.text(max_size=20), min_size=1, max_size=4), st.sampled_from(ROW_KINDS))
def test_any_lines_are_records_or_a_fault_that_names_the_file(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], kind: str
) -> None:
    records = read_any(lambda path: read_rows(path, NAMES, kind=kind), lines, tmp_path_factory)
    assert all(isinstance(record, dict) for _, _, record in records or ())  # pyright: ignore[reportGeneralTypeIssues]
