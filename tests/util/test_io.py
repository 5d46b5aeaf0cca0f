"""Every error names file and line; every write is all or nothing; every fingerprint tells things apart."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.types import UserError
from retrograd.util.io import (
    LOCK_FILE,
    atomic_directory,
    atomic_file,
    fingerprint,
    fingerprint_files,
    line_count,
    lock_folder,
    read_json,
    read_json_list,
    read_jsonl,
    read_lines,
    read_tsv,
    sha256_of,
    standing,
    write_json,
    write_jsonl,
)


def written(folder: Path, content: bytes, name: str = "data.txt") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def write_half(file: TextIO) -> None:
    file.write("half")
    raise TypeError("the other half cannot be written")


class TestReadLines:
    def test_numbers_lines_and_drops_their_ends(self, tmp_path):
        path = written(tmp_path, "\ufeffalpha\r\n\nbéta".encode())
        assert list(read_lines(path)) == [(1, "alpha"), (2, ""), (3, "béta")]

    def test_a_byte_order_mark_counts_only_at_the_start(self, tmp_path):
        path = written(tmp_path, "a\n\ufeffb\n".encode())
        assert list(read_lines(path)) == [(1, "a"), (2, "\ufeffb")]

    def test_compressed_files_read_alike(self, tmp_path):
        content = b"alpha\nbeta\n"
        plain, packed = written(tmp_path, content), written(tmp_path, gzip.compress(content), "data.txt.gz")
        assert list(read_lines(packed)) == list(read_lines(plain))

    @pytest.mark.parametrize("damage", [lambda raw: raw[:-9], lambda raw: raw[:20] + b"\x00" * 8 + raw[28:]])
    def test_a_damaged_compressed_file(self, tmp_path, damage):
        path = written(tmp_path, damage(gzip.compress(bytes(range(256)) * 40)), "data.gz")
        with pytest.raises(UserError, match=r"data\.gz"):
            list(read_lines(path))

    def test_a_compressed_name_on_a_plain_file(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.gz: damaged after line 0 .*fetch it"):
            list(read_lines(written(tmp_path, b"alpha\n", "data.gz")))

    def test_names_the_line_that_is_not_utf8(self, tmp_path):
        path = written(tmp_path, b"alpha\nb\xe4ta\n")
        with pytest.raises(UserError, match=r"data\.txt, line 2: not UTF-8 \(byte 2 .*re-save the file as UTF-8"):
            list(read_lines(path))

    def test_empty(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt is empty"):
            list(read_lines(written(tmp_path, b"")))

    def test_missing_says_what_is_there_instead(self, tmp_path):
        written(tmp_path, b"x", "train.jsonl")
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
        assert list(read_jsonl(written(tmp_path, b'\n{"a": 1}\n  \n{"a": 2}\n'))) == [(2, {"a": 1}), (4, {"a": 2})]

    def test_only_blank_lines(self, tmp_path):
        with pytest.raises(UserError, match="holds only blank lines"):
            list(read_jsonl(written(tmp_path, b"\n \n")))

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
            list(read_jsonl(written(tmp_path, b"{}\n" + line + b"\n")))

    def test_a_whole_surrogate_pair_is_a_sign(self, tmp_path):
        assert list(read_jsonl(written(tmp_path, rb'{"a": "\ud83c\udf75"}'))) == [(1, {"a": "\U0001f375"})]

    def test_json_errors_name_line_and_column(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt, line 2, column 8: not valid JSON"):
            read_json(written(tmp_path, b'{"a": 1,\n  "b": }'))

    def test_json_nested_without_end(self, tmp_path):
        with pytest.raises(UserError, match=r"data\.txt: JSON nested too deeply"):
            read_json(written(tmp_path, b"[" * 100_000))


class TestTsv:
    def test_rows_by_column_name(self, tmp_path):
        path = written(tmp_path, b'id\ttext\tmore\n1\t5" pipe\t\n\n2\t"a\tb"\tx\n')
        assert list(read_tsv(path, ("text", "id"))) == [
            (2, {"id": "1", "text": '5" pipe', "more": ""}),
            (4, {"id": "2", "text": "a\tb", "more": "x"}),
        ]

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"id\ttext\n1\ta\n2\n", "line 3: 1 cells; the header has 2 columns"),
            (b"id\ttext\n1\ta\tb\n", "line 2: 3 cells"),
            (b'id\ttext\n1\t"a\n', "line 2: malformed row"),
            (b"id\tlabel\n", "line 1: no column 'text'; the header has id, label"),
        ],
    )
    def test_errors_name_the_line(self, tmp_path, content, message):
        with pytest.raises(UserError, match=rf"data\.txt, {message}"):
            list(read_tsv(written(tmp_path, content), ("id", "text")))


class TestAtomicFile:
    def test_replaces_and_leaves_nothing_else(self, tmp_path):
        path = written(tmp_path, b"old")
        with atomic_file(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_permissions_are_those_of_any_new_file(self, tmp_path):
        plain = written(tmp_path, b"", "plain")
        with atomic_file(tmp_path / "atomic") as temporary:
            temporary.write_text("new")
        assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    @pytest.mark.parametrize("existed", [True, False])
    def test_an_error_inside_changes_nothing(self, tmp_path, existed):
        path = written(tmp_path, b"old") if existed else tmp_path / "data.txt"
        with pytest.raises(TypeError), atomic_file(path) as temporary, temporary.open("w") as file:
            write_half(file)
        assert [p.read_text() for p in tmp_path.iterdir()] == ["old"] * existed

    def test_a_record_that_cannot_be_written_keeps_the_old_file(self, tmp_path):
        path = tmp_path / "records.jsonl"
        write_jsonl(path, [{"a": 1}])
        with pytest.raises(TypeError):
            write_jsonl(path, ({"a": value} for value in (2, object())))
        assert list(read_jsonl(path)) == [(1, {"a": 1})]


class TestAtomicDirectory:
    def test_appears_complete(self, tmp_path):
        path = tmp_path / "above" / "folder"
        with atomic_directory(path) as temporary:
            (temporary / "part").write_text("1")
            assert not path.exists()
        assert (path / "part").read_text() == "1"
        assert list(path.parent.iterdir()) == [path]

    def test_replaces_an_older_one_whole(self, tmp_path):
        path = tmp_path / "folder"
        for name in ("old", "new"):
            with atomic_directory(path) as temporary:
                (temporary / name).write_text(name)
        assert [p.name for p in path.iterdir()] == ["new"]
        assert list(tmp_path.iterdir()) == [path]

    @pytest.mark.parametrize("existed", [True, False])
    def test_an_error_inside_changes_nothing(self, tmp_path, existed):
        path = tmp_path / "folder"
        if existed:
            path.mkdir()
            (path / "old").touch()
        with pytest.raises(TypeError), atomic_directory(path) as temporary, (temporary / "new").open("w") as file:
            write_half(file)
        assert list(tmp_path.rglob("*")) == ([path, path / "old"] if existed else [])

    def test_a_file_is_not_replaced(self, tmp_path):
        path = written(tmp_path, b"mine")
        with pytest.raises(UserError, match="is a file; expected a folder"), atomic_directory(path):
            pass
        assert path.read_bytes() == b"mine"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_rename_that_fails_puts_the_older_one_back(self, tmp_path, monkeypatch):
        path = tmp_path / "folder"
        with atomic_directory(path) as temporary:
            (temporary / "old").touch()
        rename, seen = Path.replace, []

        def fails_for_the_new_one(source, target):
            if source.suffix == ".tmp":
                seen.extend(one.name for one in standing(path).iterdir())
                raise PermissionError
            return rename(source, target)

        monkeypatch.setattr(Path, "replace", fails_for_the_new_one)
        with pytest.raises(PermissionError), atomic_directory(path) as temporary:
            (temporary / "new").touch()
        assert seen == ["old"]
        assert sorted(tmp_path.rglob("*")) == [path, path / "old"]
        assert standing(tmp_path / "nothing") == tmp_path / "nothing"

    def test_killed_at_any_line_the_old_or_the_new_stands_whole(self, tmp_path):
        """In a process of its own, which forks one child for each line that a replacement runs."""
        done = subprocess.run(
            [sys.executable, "-c", KILLED_AT_EVERY_LINE, str(tmp_path)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        seen = done.stdout.split()
        assert seen[0] == "old"
        assert seen[-1] == "new"
        assert seen == sorted(seen, reverse=True)  # once the new one stands, it stays
        assert "aside" in done.stderr  # so that the gap between the two renames was met


KILLED_AT_EVERY_LINE = """
import os, shutil, sys, tempfile
from pathlib import Path
from retrograd.util import io

WATCHED = (io.__file__, shutil.__file__, tempfile.__file__)

def write(path, text):
    with io.atomic_directory(path) as folder:
        for name in "ab":
            (folder / name).write_text(text)

def write_and_die(path, last_line):
    left = last_line
    def trace(frame, event, _):
        nonlocal left
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            left -= 1
            if left == 0:
                os._exit(9)
        return trace
    sys.settrace(trace)
    write(path, "new")
    sys.settrace(None)

def killed(path, last_line):
    child = os.fork()
    if child == 0:
        write_and_die(path, last_line)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9

line, died = 0, True
while died:
    line += 1
    path = Path(sys.argv[1]) / str(line) / "folder"
    write(path, "old")
    died = killed(path, line)
    folder = io.standing(path)
    if folder != path:
        sys.stderr.write("aside ")
    texts = {(folder / name).read_text() for name in "ab"}
    assert len(texts) == 1, texts
    print(*texts)
    write(path, "next")
    assert {one.read_text() for one in path.iterdir()} == {"next"}
    left = [one.name for one in path.parent.iterdir() if one != path]
    assert all(name.endswith(".tmp") for name in left), left
"""


class TestFingerprint:
    def test_is_sha256_with_lengths_before_the_parts(self):
        # sha256 of eight little-endian bytes of length 3, then "abc"
        assert fingerprint(["abc"]) == hashlib.sha256(b"\x03\0\0\0\0\0\0\0abc").hexdigest()
        assert fingerprint([b"abc"]) == fingerprint(["abc"])

    @given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
    def test_equal_only_for_equal_parts(self, left, right):
        assert (fingerprint(left) == fingerprint(right)) == (left == right)

    def test_boundaries_and_order_count(self):
        variants = (["ab", "c"], ["a", "bc"], ["abc"], ["c", "ab"], ["ab", "", "c"], ["ab", "c", ""])
        assert len({fingerprint(parts) for parts in variants}) == len(variants)

    def test_lone_surrogates_have_one_too(self):
        assert fingerprint(["\ud800"]) != fingerprint(["\ud801"])

    def test_of_one_file_is_that_of_its_bytes(self, tmp_path):
        assert sha256_of(written(tmp_path, b"abc")) == hashlib.sha256(b"abc").hexdigest()

    def test_of_files_is_of_names_contents_and_order(self, tmp_path):
        a, b = written(tmp_path, b"1", "a"), written(tmp_path, b"2", "b")
        first = fingerprint_files([a, b])
        assert first == fingerprint_files([a, b])
        assert first != fingerprint_files([b, a])
        b.write_bytes(b"3")
        changed = fingerprint_files([a, b])
        assert changed != first
        assert fingerprint_files([a, b.rename(tmp_path / "c")]) not in (first, changed)


_HOLD = """
import sys, time
from pathlib import Path
from retrograd.util.io import lock_folder
with lock_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


class TestLockFolder:
    def test_keeps_a_second_one_out_until_the_first_is_done(self, tmp_path):
        with (
            lock_folder(tmp_path),
            pytest.raises(UserError, match=r"another process is at work in .*; wait"),
            lock_folder(tmp_path),
        ):
            pass
        with lock_folder(tmp_path):
            pass
        assert not [*tmp_path.iterdir()]

    def test_goes_with_a_renamed_folder(self, tmp_path):
        folder = tmp_path / "a"
        folder.mkdir()
        with lock_folder(folder):
            moved = folder.rename(tmp_path / "b")
            with pytest.raises(UserError, match="another process"), lock_folder(moved):
                pass

    def test_is_lifted_when_its_process_is_killed(self, tmp_path):
        with subprocess.Popen([sys.executable, "-c", _HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            assert other.stdout.readline() == "locked\n"
            with pytest.raises(UserError, match="another process"), lock_folder(tmp_path):
                pass
            other.kill()
        with lock_folder(tmp_path):
            assert (tmp_path / LOCK_FILE).exists()


SIGNS = st.text(alphabet='ab\n[]{},"\\ é', max_size=6)
RECORDS = st.lists(st.dictionaries(SIGNS, SIGNS, max_size=3), min_size=1, max_size=5)


class TestReadJsonList:
    @given(RECORDS, st.sampled_from([None, 0, 2]))
    def test_records_come_with_their_number_and_the_line_they_begin_at(
        self, tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, str]], indent: int | None
    ) -> None:
        text = json.dumps(records, indent=indent)
        path = written(tmp_path_factory.mktemp("list"), text.encode())
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
            (b'[{"a": 1, "a": 2}]', "line 1, record 1: the key 'a' stands twice in one object; keep one"),
            (b"[" + b'{"a":' * 100_000, "record 1: JSON nested too deeply"),
        ],
    )
    def test_what_is_wrong_is_named_by_line_and_record(self, tmp_path: Path, content: bytes, message: str) -> None:
        with pytest.raises(UserError, match=message):
            list(read_json_list(written(tmp_path, content)))


def test_a_key_that_stands_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.txt: the key 'b' stands twice in one object; keep one"):
        read_json(written(tmp_path, b'{"a": {"b": 1, "b": 1}}'))


@pytest.mark.parametrize("read", [read_jsonl, read_json_list, read_json])
def test_a_number_too_long_to_convert_is_no_valid_json(tmp_path, read):
    record = '{"id": ' + "1" * 5000 + "}"
    path = written(tmp_path, (f"[{record}]" if read is read_json_list else record).encode())
    with pytest.raises(UserError, match=r"data\.txt.*not valid JSON"):
        list(read(path))


@pytest.mark.parametrize("name", ["a\0b", "x" * 300])
def test_a_name_that_no_file_can_have(tmp_path: Path, name: str) -> None:
    assert line_count(tmp_path / name) == 0
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
            read(written(tmp_path, content))


def test_a_table_of_nothing_but_a_refused_line(tmp_path: Path) -> None:
    refused: list[UserError] = []
    with pytest.raises(UserError, match="no column 'id'"):
        list(read_tsv(written(tmp_path, b"\xff"), ("id",), refused.append))
    assert "not UTF-8" in str(refused[0])
