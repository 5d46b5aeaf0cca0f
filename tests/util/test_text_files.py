"""Readers name file and line in every error; what is written can be read back."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.types import UserError
from retrograd.util.text_files import (
    count_lines,
    read_json,
    read_json_list,
    read_jsonl,
    read_lines,
    read_tsv,
    write_json,
    write_jsonl,
)


def write_file(folder: Path, content: bytes, name: str = "data.txt") -> Path:
    """Write one file and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path


class TestReadLines:
    def test_numbers_lines_and_drops_their_ends(self, tmp_path):
        path = write_file(tmp_path, "\ufeffalpha\r\n\nbéta".encode())
        assert list(read_lines(path)) == [(1, "alpha"), (2, ""), (3, "béta")]

    def test_a_byte_order_mark_counts_only_at_the_start(self, tmp_path):
        path = write_file(tmp_path, "a\n\ufeffb\n".encode())
        assert list(read_lines(path)) == [(1, "a"), (2, "\ufeffb")]

    def test_compressed_files_read_alike(self, tmp_path):
        content = b"alpha\nbeta\n"
        plain, packed = write_file(tmp_path, content), write_file(tmp_path, gzip.compress(content), "data.txt.gz")
        assert list(read_lines(packed)) == list(read_lines(plain))

    @pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw[:20] + b"\x00" * 8 + raw[28:]])
    def test_a_damaged_compressed_file(self, tmp_path, damage):
        path = write_file(tmp_path, damage(gzip.compress(bytes(range(256)) * 40)), "data.gz")
        with pytest.raises(UserError, match=r"data\.gz"):
            list(read_lines(path))

    @pytest.mark.parametrize("name", ["data.gz", "data.bz2", "data.xz"])
    def test_a_compressed_name_on_another_file(self, tmp_path, name):
        assert list(read_lines(write_file(tmp_path, b"alpha\n", name))) == [(1, "alpha")]
        with pytest.raises(UserError, match=rf"{name}: damaged after line 0 .*fetch it"):
            list(read_lines(write_file(tmp_path, b"\x80\x01" * 40, name)))

    @pytest.mark.parametrize("name", ["data", "data.jsonl", "data.GZ"])
    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress, lambda content: content])
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
    def test_packing_and_encoding_are_told_by_the_first_bytes(self, tmp_path, name, pack, encoding):
        text = "alpha\r\nb\u00e9ta \U0001f355\n" + "\u8336" * 100_000 + "\nend"
        path = write_file(tmp_path, pack(text.encode(encoding)), name)
        assert [line for _, line in read_lines(path)] == ["alpha", "b\u00e9ta \U0001f355", "\u8336" * 100_000, "end"]
        if encoding == "utf-8":
            assert count_lines(path) == (3 if pack(b"a") == b"a" else 0)

    @pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, bz2.compress])
    def test_any_damaged_packing_is_refused_in_a_sentence(self, tmp_path, pack):
        content = pack(bytes(range(32, 127)) * 4000)
        for damaged in (content[:-9], content[:20] + b"\x00" * 12 + content[32:]):
            with pytest.raises(UserError, match=r"data\.txt(: damaged after line|, line|: its unpacked)"):
                list(read_lines(write_file(tmp_path, damaged)))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (pa.Codec("zstd").compress(b"alpha", asbytes=True), r"is compressed with Zstandard; unpack it \(zstd -d\)"),
            (b"PAR1" + bytes(40), "is a Parquet file; read it with pyarrow"),
            (b"PK\x03\x04" + bytes(40), "is a ZIP archive, or a spreadsheet; unpack it"),
            (b"ARROW1\0\0" + bytes(40), "is an Arrow file"),
            (b"\xff\xff\xff\xff" + bytes(40), "is an Arrow stream"),
            (b"%PDF-1.7\n", "is a PDF; as a base it is read where its name ends"),
            ("text".encode("utf-16") + b"\x00", "not UTF-16 throughout .*re-save the file as UTF-8"),
        ],
    )
    def test_files_that_are_no_text_are_named(self, tmp_path, content, message):
        for pack in (bytes, gzip.compress):
            with pytest.raises(UserError, match=message):
                list(read_lines(write_file(tmp_path, pack(content))))

    def test_names_the_line_that_is_not_utf8(self, tmp_path):
        path = write_file(tmp_path, b"alpha\nb\xe4ta\n")
        with pytest.raises(UserError, match=r"data\.txt, line 2: not UTF-8 \(byte 2 .*re-save the file as UTF-8"):
            list(read_lines(path))

    def test_empty(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt is empty"):
            list(read_lines(write_file(tmp_path, b"")))

    def test_missing_says_what_is_there_instead(self, tmp_path):
        write_file(tmp_path, b"x", "train.jsonl")
        with pytest.raises(UserError, match=r"no such file: .*dev\.jsonl; did you mean 'train\.jsonl'"):
            list(read_lines(tmp_path / "dev.jsonl"))

    def test_missing_folder(self, tmp_path):
        with pytest.raises(UserError, match=r"the folder .*nowhere does not exist"):
            list(read_lines(tmp_path / "nowhere" / "dev.jsonl"))

    def test_a_folder_is_no_file(self, tmp_path):
        with pytest.raises(UserError, match="is a folder; expected a file"):
            list(read_lines(tmp_path))


class TestJson:
    def test_jsonl_round_trip(self, tmp_path):
        records = [{"id": "é", "n": 1, "nested": {"list": [None, True, 0.1]}}, {}]
        path = tmp_path / "new" / "records.jsonl"
        write_jsonl(path, records)
        assert [record for _, record in read_jsonl(path)] == records

    def test_json_round_trip(self, tmp_path):
        value = {"a": [1, "é", None], "b": {"c": 0.1}}
        write_json(tmp_path / "value.json", value)
        assert read_json(tmp_path / "value.json") == value

    def test_blank_lines_are_skipped_yet_counted(self, tmp_path):
        assert list(read_jsonl(write_file(tmp_path, b'\n{"a": 1}\n  \n{"a": 2}\n'))) == [(2, {"a": 1}), (4, {"a": 2})]

    def test_only_blank_lines(self, tmp_path):
        with pytest.raises(UserError, match="holds only blank lines"):
            list(read_jsonl(write_file(tmp_path, b"\n \n")))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            (b'{"a": }', "line 2: not valid JSON .*one object a line"),
            (b"[1]", "line 2: expected a JSON object, found list"),
            (b"3", "line 2: expected a JSON object, found int"),
            (b"[" * 100_000, "line 2: not valid JSON"),
            (rb'{"a": ["tea \uD83d"]}', "line 2: half of a surrogate pair"),
        ],
    )
    def test_jsonl_errors_name_the_line(self, tmp_path, line, message):
        with pytest.raises(UserError, match=rf"data\.txt, {message}"):
            list(read_jsonl(write_file(tmp_path, b"{}\n" + line + b"\n")))

    def test_a_whole_surrogate_pair_is_a_sign(self, tmp_path):
        assert list(read_jsonl(write_file(tmp_path, rb'{"a": "\ud83c\udf75"}'))) == [(1, {"a": "\U0001f375"})]

    def test_json_errors_name_line_and_column(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt, line 2, column 8: not valid JSON"):
            read_json(write_file(tmp_path, b'{"a": 1,\n  "b": }'))

    def test_json_nested_without_end(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt: JSON nested too deeply"):
            read_json(write_file(tmp_path, b"[" * 100_000))


class TestTsv:
    def test_rows_by_column_name(self, tmp_path):
        path = write_file(tmp_path, b'id\ttext\tmore\n1\t5" pipe\t\n\n2\t"a\tb"\tx\n')
        assert list(read_tsv(path, ("text", "id"))) == [
            (2, {"id": "1", "text": '5" pipe', "more": ""}),
            (4, {"id": "2", "text": "a\tb", "more": "x"}),
        ]

    @pytest.mark.parametrize(
        ("cell", "text"),
        [
            ('"Tides', '"Tides'),
            ('"Tides" are high', '"Tides" are high'),
            ('"Tides" are "high"', '"Tides" are "high"'),
            ('"Tides are high"', "Tides are high"),
            ('"He said ""no"""', 'He said "no"'),
            ('"a\tb"', "a\tb"),
            ('5" pipe', '5" pipe'),
            ('"', '"'),
            ('""', ""),
        ],
    )
    @pytest.mark.parametrize("title", ["T", '"T"', 'T"', '"T'])
    def test_quotation_marks_that_are_no_quoting_are_text(self, tmp_path, cell, text, title):
        table = f"id\ttext\ttitle\n1\t{cell}\t{title}\n2\tnext\t\n"
        plain = "T" if title == '"T"' else title
        if "\t" in cell and plain != "T":
            return  # what is quoted here is anybody's guess
        assert list(read_tsv(write_file(tmp_path, table.encode()), ("id", "text"))) == [
            (2, {"id": "1", "text": text, "title": plain}),
            (3, {"id": "2", "text": "next", "title": ""}),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"id\ttext\n1\ta\n2\n", "line 3: 1 cells; the header has 2 columns"),
            (b"id\ttext\n1\ta\tb\n", "line 2: 3 cells.*one tab between two cells, and none inside a cell"),
            (b'id\ttext\n1\t"a\tb\n', "line 2: 3 cells"),
            (b"id\tlabel\n", "line 1: no column 'text'; the header has id, label"),
        ],
    )
    def test_errors_name_the_line(self, tmp_path, content, message):
        with pytest.raises(UserError, match=rf"data\.txt, {message}"):
            list(read_tsv(write_file(tmp_path, content), ("id", "text")))


SIGNS = st.text(alphabet='ab\n[]{},"\\ é', max_size=6)
RECORDS = st.lists(st.dictionaries(SIGNS, SIGNS, max_size=3), min_size=1, max_size=5)


class TestReadJsonList:
    @given(RECORDS, st.sampled_from([None, 0, 2]))
    def test_records_come_with_their_number_and_the_line_they_begin_at(
        self, tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, str]], indent: int | None
    ) -> None:
        text = json.dumps(records, indent=indent)
        path = write_file(tmp_path_factory.mktemp("list"), text.encode())
        found = list(read_json_list(path))
        assert [record for _, _, record in found] == records
        assert [number for number, _, _ in found] == list(range(1, len(records) + 1))
        before, lines = 1 if indent is None else 2, []
        for record in records:
            lines.append(before)
            before += 0 if indent is None else json.dumps([record], indent=indent).count("\n") - 1
        assert [line for _, line, _ in found] == lines

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b'{"a": 1}', r"data\.txt: expected one JSON list of objects, found '\{\"a\": 1\}'"),
            (b" [ ] ", "is an empty list; expected at least one object"),
            (b'[{"a": 1},\n {"a" 1}]', r"line 2, record 2: not valid JSON \(Expecting ':' .*, line 2, column 7\)"),
            (b'[{"a": 1},\n]', "line 2, record 2: not valid JSON"),
            (b'[{"a": 1}\n {"a": 1}]', r"line 1, record 1: expected ',' or '\]' after it, found '\{"),
            (b'[{"a": 1},', "record 2: not valid JSON"),
            (b'[{"a": 1}', "record 1: expected ',' or ']' after it, found the end of the file"),
            (b'[{"a": 1}] []', "something follows the end of the list"),
            (b'[{"a": 1}, 2]', "line 1, record 2: expected a JSON object, found int"),
            (b'[{"a": 1, "a": 2}]', "line 1, record 1: the key 'a' occurs twice in one object; keep one"),
            (b"[" + b'{"a":' * 100_000, "record 1: JSON nested too deeply"),
        ],
    )
    def test_what_is_wrong_is_named_by_line_and_record(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(UserError, match=message):
            list(read_json_list(write_file(tmp_path, content)))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.txt: the key 'b' occurs twice in one object; keep one"):
        read_json(write_file(tmp_path, b'{"a": {"b": 1, "b": 1}}'))


@pytest.mark.parametrize("read", [read_jsonl, read_json_list, read_json])
def test_a_number_too_long_to_convert_is_no_valid_json(tmp_path, read):
    record = '{"id": ' + "1" * 5000 + "}"
    path = write_file(tmp_path, (f"[{record}]" if read is read_json_list else record).encode())
    with pytest.raises(UserError, match=r"data\.txt.*not valid JSON"):
        list(read(path))


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    assert count_lines(tmp_path / name) == 0
    with pytest.raises(UserError, match="check the path"):
        list(read_lines(tmp_path / name))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="is a pipe or a device"):
        list(read_lines(tmp_path / "pipe"))


@pytest.mark.parametrize("read", [read_json, lambda path: list(read_json_list(path))])
def test_half_a_surrogate_pair_is_refused_wherever_it_stands(tmp_path: Path, read: Callable[[Path], object]) -> None:
    for content in (b'[{"a": ["\\ud83d"]}]', b'[{"\\uDC00": 1}]'):
        with pytest.raises(UserError, match="half of a surrogate pair"):
            read(write_file(tmp_path, content))


def test_a_table_of_nothing_but_a_refused_line(tmp_path: Path) -> None:
    refused: list[UserError] = []
    with pytest.raises(UserError, match="no column 'id'"):
        list(read_tsv(write_file(tmp_path, b"\xff"), ("id",), refused.append))
    assert "not UTF-8" in str(refused[0])
