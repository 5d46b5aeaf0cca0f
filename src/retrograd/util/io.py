"""Reading and writing: every error names the file and the line, every write is atomic, every fingerprint is SHA-256."""

from __future__ import annotations

import csv
import hashlib
import itertools
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from retrograd.types import UserError
from retrograd.util.guards import (
    JsonObject,
    JsonValue,
    open_packed,
    parse_json,
    parse_json_at,
    parse_json_line,
    require_file,
)

__all__ = [
    "LOCK_FILE",
    "JsonObject",
    "JsonValue",
    "Refuse",
    "atomic_directory",
    "atomic_file",
    "fingerprint",
    "fingerprint_files",
    "line_count",
    "lock_folder",
    "open_to_umask",
    "raised",
    "read_json",
    "read_json_list",
    "read_jsonl",
    "read_lines",
    "read_tsv",
    "sha256_of",
    "standing",
    "write_json",
    "write_jsonl",
]

LOCK_FILE = ".lock"

Refuse = Callable[[UserError], None]
"""What a reader does with a record that it must leave out. Where it returns, the reader goes on with the next one."""


def raised(error: UserError) -> None:
    """The first fault ends the reading: what training wants."""
    raise error from None


def read_lines(path: Path, refuse: Refuse = raised) -> Iterator[tuple[int, str]]:
    """Numbered lines (from 1) of a UTF-8 file without line ends; a name ending in ``.gz`` is decompressed on the way.

    A line that is not UTF-8 is refused. Raises `UserError` for a missing or empty file, and for a damaged compressed
    one.
    """
    require_file(path)
    number = 0
    with open_packed(path) if path.suffix == ".gz" else path.open("rb") as file:
        try:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = f"byte {error.start + 1} of the line"
                    refuse(UserError(f"{path}, line {number}: not UTF-8 ({place}); re-save the file as UTF-8"))
                    continue
                yield number, line.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path}: damaged after line {number} ({error}); fetch it or compress it again") from None
    if number == 0:
        raise UserError(f"{path} is empty; expected at least one line")


def line_count(path: Path) -> int:
    """Line ends in a file; 0 of a compressed one, and of none."""
    try:
        require_file(path)
    except UserError:
        return 0
    if path.suffix == ".gz":
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def read_jsonl(path: Path, refuse: Refuse = raised) -> Iterator[tuple[int, JsonObject]]:
    """Numbered JSON objects, one a line; blank lines are skipped, others refused, with file and line.

    Raises `UserError` as `read_lines` does, and where there is nothing but blank lines.
    """
    found = False
    for number, line in read_lines(path, refuse):
        if not line.strip():
            continue
        found = True
        try:
            record = parse_json_line(line, f"{path}, line {number}")
        except UserError as error:
            refuse(error)
            continue
        yield number, record
    if not found:
        raise UserError(f"{path} holds only blank lines; expected one JSON object a line")


def read_json(path: Path) -> JsonValue:
    """Return the JSON value of a file. Raises as `retrograd.util.guards.parse_json` does."""
    return parse_json(_text(path), str(path))


def read_json_list(path: Path) -> Iterator[tuple[int, int, JsonObject]]:
    """(record, line, object) of a file that is one JSON list of objects; both numbers count from 1.

    Records are parsed one at a time, so that an error names the record even where the whole list is one line.
    Raises `UserError` with file, line and record.
    """
    text = _text(path)
    position = _after_blanks(text, 0)
    if not text.startswith("[", position):
        raise UserError(f"{path}: expected one JSON list of objects, found {_excerpt(text, position)}")
    if text.startswith("]", _after_blanks(text, position + 1)):
        raise UserError(f"{path} is an empty list; expected at least one object")
    line, counted = 1, 0
    for number in itertools.count(1):
        position = _after_blanks(text, position + 1)  # past the '[' or ','
        line += text.count("\n", counted, position)
        counted = position
        record, end = parse_json_at(text, position, f"{path}, line {line}, record {number}")
        position = _after_blanks(text, end)
        yield number, line, record
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            raise UserError(
                f"{path}, line {line}, record {number}: expected ',' or ']' after it, found {_excerpt(text, position)}"
            )
    if _after_blanks(text, position + 1) != len(text):
        raise UserError(f"{path}: something follows the end of the list; keep one list in a file")


def _excerpt(text: str, position: int) -> str:
    return repr(text[position : position + 20]) if position < len(text) else "the end of the file"


def _text(path: Path) -> str:
    return "\n".join(line for _, line in read_lines(path))


def _after_blanks(text: str, position: int) -> int:
    """The first position from ``position`` on that is no blank of JSON, or the length of the text."""
    found = _NO_BLANK.search(text, position)
    return found.start() if found else len(text)


_NO_BLANK = re.compile(r"[^ \t\n\r]")


def read_tsv(path: Path, columns: tuple[str, ...], refuse: Refuse = raised) -> Iterator[tuple[int, dict[str, str]]]:
    """Numbered rows of a tab-separated file whose header has ``columns``; malformed rows are refused, with the line.

    Raises `UserError` for a missing column.
    """
    lines = read_lines(path, refuse)
    _, header_line = next(lines, (0, ""))
    header = header_line.split("\t")
    missing = [name for name in columns if name not in header]
    if missing:
        raise UserError(f"{path}, line 1: no column {missing[0]!r}; the header has {', '.join(header)}")
    for number, line in lines:
        if not line.strip():
            continue
        try:
            cells = next(csv.reader([line], delimiter="\t", strict=True))
        except (csv.Error, StopIteration) as error:
            refuse(UserError(f"{path}, line {number}: malformed row ({error})"))
            continue
        if len(cells) != len(header):
            refuse(UserError(f"{path}, line {number}: {len(cells)} cells; the header has {len(header)} columns"))
            continue
        yield number, dict(zip(header, cells, strict=True))


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """A temporary path beside ``path`` to write to; it replaces ``path`` when the block ends well, else it vanishes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """The same for a whole folder: it appears under its name complete, or not at all. An older one is replaced.

    No system call that is everywhere puts one folder in the place of another, so the older one steps aside first. If
    the process is killed just then, `standing` finds the older one there, and the next writer puts it back.

    Raises `UserError` if ``path`` is a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        raise UserError(f"{path} is a file; expected a folder, or nothing there yet")
    aside = _aside(path)
    if aside.parent.exists():
        if aside.exists() and not path.exists():
            aside.replace(path)
        shutil.rmtree(aside.parent)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp"))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            temporary.replace(path)
            return
        aside.parent.mkdir()
        path.replace(aside)
        try:
            temporary.replace(path)
        except BaseException:
            aside.replace(path)
            aside.parent.rmdir()
            raise
        aside.parent.replace(temporary)  # in one step: a half-removed folder must not be taken for the older one
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def standing(path: Path) -> Path:
    """Where to read a folder that `atomic_directory` writes: ``path``, or where the older one stands aside meanwhile.

    ``path`` itself where there is neither.
    """
    aside = _aside(path)
    return aside if not path.exists() and aside.exists() else path


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.old") / path.name


@contextmanager
def lock_folder(folder: Path, lock_file: Path | None = None) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of ``folder``; the system lifts it when a process dies.

    ``lock_file`` holds the lock: by default ``.lock`` in the folder, which keeps it through a renaming. It is removed
    at the end, and a later process takes over one that a killed process left. Raises `UserError` at once if another
    process holds the lock.
    """
    path = folder / LOCK_FILE if lock_file is None else lock_file
    lock = FileLock(path, blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise UserError(f"another process is at work in {folder}; wait until it ends, or stop it first") from None
    try:
        yield
    finally:
        with suppress(OSError):  # Windows removes no open file
            path.unlink()  # before the release: whoever waits for the removed file sees that it has no name any more
        lock.release()


def open_to_umask(folder: Path) -> None:
    """Give the weights of a folder the permissions of new files: safetensors lets nobody but their owner read them."""
    for path in folder.glob("*.safetensors"):
        path.chmod(0o666 & ~_umask())


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: Path, value: object) -> None:
    """Atomically write one JSON value (whatever `json.dumps` takes), indented."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_jsonl(path: Path, records: Iterable[Mapping[str, JsonValue]]) -> None:
    """Atomically write one JSON object a line."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(dict(record), ensure_ascii=False) + "\n")


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """SHA-256 (hex) of a sequence of strings or bytes; the boundaries between parts count."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_files(paths: Iterable[Path]) -> str:
    """SHA-256 (hex) over names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
