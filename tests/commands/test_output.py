"""Output that cannot be written as it is: another encoding, a full disk, a closed pipe, a folder for reading only."""

from __future__ import annotations

import errno
import io
import json
import os
from pathlib import Path

import pytest
from safetensors import SafetensorError

import retrograd.__main__ as program
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError


def run_command(monkeypatch: pytest.MonkeyPatch, output: io.TextIOWrapper, *arguments: str) -> int:
    """Run the program with this output, and return its exit status."""
    monkeypatch.setattr("sys.argv", ["retrograd", *arguments])
    monkeypatch.setattr("sys.stdout", output)
    with pytest.raises(SystemExit) as end:
        program.main()
    code = end.value.code
    return code if isinstance(code, int) else int(code is not None)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "latin-1", "cp437", "utf-8"])
def test_signs_that_an_encoding_lacks_are_escaped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str
) -> None:
    data = tmp_path / "questions.jsonl"
    records = [{"id": "茶", "question": "热 ?", "answers": ["茶"]}] * 2
    data.write_text("".join(json.dumps(one, ensure_ascii=False) + "\n" for one in records), "utf-8")
    with (tmp_path / "output").open("wb") as file:
        output = io.TextIOWrapper(file, encoding=encoding)
        assert run_command(monkeypatch, output, "validate", str(data), "--kind", "questions") == 1
        output.flush()
        text = (tmp_path / "output").read_text(encoding)
    assert ("茶" if encoding == "utf-8" else r"\u8336") in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_full_disk_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    output = io.TextIOWrapper(Path("/dev/full").open("wb"), encoding="utf-8")  # noqa: SIM115
    assert run_command(monkeypatch, output, "show", "semeval-joint") == 2
    output.close()  # which would fail if anything was left to write
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    assert "retrograd: No space left on device; make room" in message


def test_a_closed_pipe_is_told_in_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for buffering in (-1, 0):  # the end finds the pipe closed, or the command itself
        reader, writer = os.pipe()
        os.close(reader)
        binary = os.fdopen(writer, "wb", buffering)
        output = io.TextIOWrapper(binary, encoding="utf-8", write_through=buffering == 0)  # pyright: ignore
        assert run_command(monkeypatch, output, "show", "semeval-joint") == 2
        output.close()
        assert "retrograd: the output was closed before all of it was written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS), "/disk/run"),
            "/disk/run: Read-only file system; check the path",
        ),
        (OSError(errno.EACCES, os.strerror(errno.EACCES), "run"), "run: Permission denied; check the path"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "run"), "run: No space left on device; make room"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)), "No space left on device; make room"),
        (OSError(errno.EDQUOT, os.strerror(errno.EDQUOT)), "Disk quota exceeded; make room"),
        (
            OSError(errno.EROFS, os.strerror(errno.EROFS)),
            "Read-only file system; check its permissions, or choose another folder",
        ),
        (SafetensorError('I/O error: Os { code: 28, message: "No space left on device" }'), "No space left on device"),
    ],
)
def test_errors_of_writing_are_told_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, error: Exception, message: str
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr(program, "app", fail)
    with pytest.raises(SystemExit, match="2"):
        program.main()
    assert message in (told := capsys.readouterr().err)
    assert told.count("\n") == 1


def test_other_errors_of_the_system_keep_their_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise OSError(errno.ECONNRESET, "reset")

    monkeypatch.setattr(program, "app", fail)
    with pytest.raises(OSError, match="reset"):
        program.main()


@pytest.mark.parametrize("has_checkpoint", [False, True])
def test_the_way_to_go_on_is_one_that_there_is(tmp_path: Path, has_checkpoint: bool) -> None:
    run = RunDirectory.create(tmp_path / "run", "", "no")
    if has_checkpoint:
        with run.new_checkpoint("joint", 3, 2):
            pass
    with pytest.raises(UserError, match="could not be written") as told, run.writing("the model"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert ("from the last checkpoint" in str(told.value)) is has_checkpoint
    assert f"retrograd train --resume {run.path}" in str(told.value)
