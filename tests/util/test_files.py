"""Files and folders are written whole or not at all; a lock keeps other processes out."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path
from typing import TextIO

import pytest

from retrograd.types import UserError
from retrograd.util.files import LOCK_FILE, atomic_directory, atomic_file, find_current_or_backup, lock_folder
from retrograd.util.text_files import (
    read_jsonl,
    write_jsonl,
)


def write_file(folder: Path, content: bytes, name: str = "data.txt") -> Path:
    """Write one file and return its path."""
    path = folder / name
    path.write_bytes(content)
    return path


def write_half(file: TextIO) -> None:
    file.write("half")
    raise TypeError("the other half cannot be written")


class TestAtomicFile:
    def test_replaces_and_leaves_nothing_else(self, tmp_path):
        path = write_file(tmp_path, b"old")
        with atomic_file(path) as temporary:
            temporary.write_text("new")
            assert path.read_text() == "old"
        assert path.read_text() == "new"
        assert list(tmp_path.iterdir()) == [path]

    def test_permissions_are_those_of_any_new_file(self, tmp_path):
        plain = write_file(tmp_path, b"", "plain")
        with atomic_file(tmp_path / "atomic") as temporary:
            temporary.write_text("new")
        assert stat.S_IMODE((tmp_path / "atomic").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)

    @pytest.mark.parametrize("existed", [True, False])
    def test_an_error_inside_changes_nothing(self, tmp_path, existed):
        path = write_file(tmp_path, b"old") if existed else tmp_path / "data.txt"
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
        path = write_file(tmp_path, b"mine")
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
                seen.extend(one.name for one in find_current_or_backup(path).iterdir())
                raise PermissionError
            return rename(source, target)

        monkeypatch.setattr(Path, "replace", fails_for_the_new_one)
        with pytest.raises(PermissionError), atomic_directory(path) as temporary:
            (temporary / "new").touch()
        assert seen == ["old"]
        assert sorted(tmp_path.rglob("*")) == [path, path / "old"]
        assert find_current_or_backup(tmp_path / "nothing") == tmp_path / "nothing"

    def test_killed_at_any_line_the_old_or_the_new_stands_whole(self, tmp_path):
        """Run in a separate process, which forks one child for each line that a replacement executes."""
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
from retrograd.util import files

WATCHED = (files.__file__, shutil.__file__, tempfile.__file__)

def write(path, text):
    with files.atomic_directory(path) as folder:
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
    folder = files.find_current_or_backup(path)
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


_HOLD = """
import sys, time
from pathlib import Path
from retrograd.util.files import lock_folder
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
