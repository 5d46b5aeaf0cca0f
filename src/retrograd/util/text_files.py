"""Text, JSON and tables, read with errors that name file and line, and written atomically."""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from retrograd.types import UserError
from retrograd.util.files import atomic_file
from retrograd.util.guards import (
    JsonObject,
    JsonValue,
    parse_json,
    parse_json_at,
    parse_json_line,
    require_file,
)
from retrograd.util.packed_files import DAMAGES, is_plain_text, open_text_bytes

__all__ = [
    "Refuse",
    "count_lines",
    "first_line",
    "raise_error",
    "read_json",
    "read_json_list",
    "read_jsonl",
    "read_lines",
    "read_tsv",
    "split_row",
    "write_json",
    "write_jsonl",
    "write_lines",
]

Refuse = Callable[[UserError], None]
"""A function that receives the error of a bad record. If it returns, the reader continues with the next record."""


def raise_error(error: UserError) -> None:
    """Raise the first error, which ends the reading, as training requires."""
    raise error from None


def read_lines(path: Path, refuse: Refuse = raise_error) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines (from 1) of a text file without line ends, unpacked and decoded on the way.

    `retrograd.util.packed_files` says what can be unpacked and decoded; a file without such a beginning is UTF-8. A
    line that is not UTF-8 is refused. Raises `UserError` for a missing or empty file, for one that is no text, and for
    a damaged compressed one.
    """
    require_file(path)
    number = 0
    try:
        with open_text_bytes(path) as file:
            for number, raw in enumerate(file, start=1):
                try:
                    line = raw.decode("utf-8")
                except UnicodeDecodeError as error:
                    place = f"byte {error.start + 1} of the line"
                    refuse(UserError(f"{path}, line {number}: not UTF-8 ({place}); re-save the file as UTF-8"))
                    continue
                yield number, line.rstrip("\r\n").removeprefix("\ufeff" if number == 1 else "")
    except DAMAGES as error:
        raise UserError(f"{path}: damaged after line {number} ({error}); fetch it or compress it again") from None
    if number == 0:
        raise UserError(f"{path} is empty; expected at least one line")


def first_line(path: Path, expected: str) -> tuple[int, str]:
    """Return number and text of the first line that is not blank.

    Raises `UserError` as `read_lines` does and, with what was ``expected``, where all lines are blank.
    """
    for number, line in read_lines(path):
        if line.strip():
            return number, line
    raise UserError(f"{path} holds only blank lines; expected {expected}")


def count_lines(path: Path) -> int:
    """Return the number of line ends in a file; 0 for one that is missing, compressed or no text."""
    try:
        require_file(path)
    except UserError:
        return 0
    if not is_plain_text(path):
        return 0
    with path.open("rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))


def read_jsonl(path: Path, refuse: Refuse = raise_error) -> Iterator[tuple[int, JsonObject]]:
    """Yield numbered JSON objects, one a line; blank lines are skipped, others refused, with file and line.

    Raises `UserError` as `read_lines` does, and where there is nothing but blank lines.
    """
    has_records = False
    for number, line in read_lines(path, refuse):
        if not line.strip():
            continue
        has_records = True
        try:
            record = parse_json_line(line, f"{path}, line {number}")
        except UserError as error:
            refuse(error)
            continue
        yield number, record
    if not has_records:
        raise UserError(f"{path} holds only blank lines; expected one JSON object a line")


def read_json(path: Path) -> JsonValue:
    """Return the JSON value of a file. Raises as `retrograd.util.guards.parse_json` does."""
    return parse_json(_read_text(path), str(path))


def read_json_list(path: Path) -> Iterator[tuple[int, int, JsonObject]]:
    """Yield (record, line, object) of a file that is one JSON list of objects; both numbers count from 1.

    Records are parsed one at a time, so that an error names the record even where the whole list is one line.
    Raises `UserError` with file, line and record.
    """
    text = _read_text(path)
    position = _skip_blanks(text, 0)
    if not text.startswith("[", position):
        raise UserError(f"{path}: expected one JSON list of objects, found {_shorten(text, position)}")
    if text.startswith("]", _skip_blanks(text, position + 1)):
        raise UserError(f"{path} is an empty list; expected at least one object")
    line, line_end = 1, 0
    for number in itertools.count(1):
        position = _skip_blanks(text, position + 1)  # past the '[' or ','
        line += text.count("\n", line_end, position)
        line_end = position
        record, end = parse_json_at(text, position, f"{path}, line {line}, record {number}")
        position = _skip_blanks(text, end)
        yield number, line, record
        if text.startswith("]", position):
            break
        if not text.startswith(",", position):
            raise UserError(
                f"{path}, line {line}, record {number}: expected ',' or ']' after it, found {_shorten(text, position)}"
            )
    if _skip_blanks(text, position + 1) != len(text):
        raise UserError(f"{path}: something follows the end of the list; keep one list in a file")


def _shorten(text: str, position: int) -> str:
    return repr(text[position : position + 20]) if position < len(text) else "the end of the file"


def _read_text(path: Path) -> str:
    return "\n".join(line for _, line in read_lines(path))


def _skip_blanks(text: str, position: int) -> int:
    """Return the first position from ``position`` on that is not JSON whitespace, or the length of the text."""
    match = _NO_BLANK.search(text, position)
    return match.start() if match else len(text)


_NO_BLANK = re.compile(r"[^ \t\n\r]")


def read_tsv(
    path: Path, columns: tuple[str, ...], refuse: Refuse = raise_error
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the numbered rows of a tab-separated file whose header has ``columns``; malformed rows are refused,
    with the line.

    Raises `UserError` for a missing column.
    """
    lines = read_lines(path, refuse)
    _, header_line = next(lines, (0, ""))
    header = split_row(header_line, header_line.count("\t") + 1)
    missing = [name for name in columns if name not in header]
    if missing:
        raise UserError(f"{path}, line 1: no column {missing[0]!r}; the header has {', '.join(header)}")
    for number, line in lines:
        if not line.strip():
            continue
        cells = split_row(line, len(header))
        if len(cells) != len(header):
            expected = f"the header has {len(header)} columns: write one tab between two cells, and none inside a cell"
            refuse(UserError(f"{path}, line {number}: {len(cells)} cells; {expected}"))
            continue
        yield number, dict(zip(header, cells, strict=True))


def split_row(line: str, columns: int) -> list[str]:
    """Return the cells of a row of a table with tabs, without the quotation marks that quote a whole cell.

    A quotation mark that quotes no whole cell is text: many tables, DPR's among them, quote where they must and leave
    other cells as they are. A row of another number of cells than ``columns`` is read by the rules of quoting alone, by
    which a quoted cell may hold a tab.
    """
    cells = line.split("\t")
    if len(cells) != columns:
        with suppress(csv.Error, StopIteration):
            quoted = next(csv.reader([line], delimiter="\t", strict=True))
            return quoted if len(quoted) == columns else cells
    return [cell[1:-1].replace('""', '"') if _QUOTED.fullmatch(cell) else cell for cell in cells]


_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def write_json(path: Path, value: object) -> None:
    """Atomically write one JSON value (whatever `json.dumps` takes), indented."""
    with atomic_file(path) as temporary:
        temporary.write_text(json.dumps(value, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")


def write_jsonl(path: Path, records: Iterable[Mapping[str, JsonValue]]) -> None:
    """Atomically write one JSON object a line."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(dict(record), ensure_ascii=False) + "\n")


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Atomically write lines of text, which have no line ends of their own."""
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line in lines:
            file.write(line + "\n")
