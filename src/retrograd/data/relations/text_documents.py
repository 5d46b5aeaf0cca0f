"""Read plain text: files that end in ``.txt``, ``.text``, ``.md`` or ``.markdown``, and folders of them.

Offsets in a text count the characters that Python's ``read_text`` gives: decoded, every line end one ``\\n``, without a
byte order mark. Markdown is read as it is written; headings, list items, quotations and rows of tables are blocks, and
no sentence goes from one block into another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.types import Span, UserError
from retrograd.util.guards import require_file
from retrograd.util.packed_files import DAMAGES, open_text_bytes

__all__ = ["TEXT_SUFFIXES", "TextDocument", "is_plain_text", "list_text_files", "read_text_document"]

_MARKDOWN = (".md", ".markdown")
TEXT_SUFFIXES = (".txt", ".text", *_MARKDOWN)
"""How the names of files of plain text end."""

_BLOCK = re.compile(r"^[ \t]*(?:#{1,6}[ \t]+|[-*+][ \t]+|\d{1,9}[.)][ \t]+|>[ \t]?|\|)", re.MULTILINE)
"""What begins a block of Markdown that a line before does not belong to."""
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t].*$", re.MULTILINE)


@dataclass(frozen=True)
class TextDocument:
    """A text with its id, which is the path of its file, and its blocks: spans that no sentence crosses.

    ``sentences`` are those of a file that states them.
    """

    id: str
    text: str
    blocks: tuple[Span, ...]
    sentences: tuple[Span, ...] | None = None

    @classmethod
    def plain(cls, id_: str, text: str) -> TextDocument:
        """Return a text of one block."""
        return cls(id_, text, (Span(0, len(text)),))


def is_plain_text(path: Path) -> bool:
    """Return whether a path is named as plain text is, or is a folder without brat's annotations (``.ann``)."""
    return not any(path.glob("*.ann")) if path.is_dir() else path.suffix.lower() in TEXT_SUFFIXES


def list_text_files(path: Path) -> list[Path]:
    """Return a file itself, or the files of plain text in a folder and below, hidden ones left out, by their names.

    Raises `UserError` for a folder that has none.
    """
    if not path.is_dir():
        return [path]
    files = sorted(
        one
        for one in path.rglob("*")
        if one.suffix.lower() in TEXT_SUFFIXES
        and one.is_file()
        and not any(part.startswith(".") for part in one.relative_to(path).parts)
    )
    if not files:
        raise UserError(f"{path}: no file in this folder ends in {', '.join(TEXT_SUFFIXES)}; name a folder of texts")
    return files


def read_text_document(path: Path) -> TextDocument:
    """Read a file; an empty one is an empty text. Raises `UserError` for what is no text in Unicode."""
    require_file(path)
    try:
        with open_text_bytes(path) as file:
            content = file.read()
    except DAMAGES as error:
        raise UserError(f"{path}: damaged ({error}); fetch it or compress it again") from None
    try:
        text = content.decode("utf-8").removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8; re-save the file as UTF-8") from None
    if path.suffix.lower() in _MARKDOWN:
        return TextDocument(str(path), text, tuple(_split_blocks(text)))
    return TextDocument.plain(str(path), text)


def _split_blocks(text: str) -> Iterator[Span]:
    """Yield the blocks of Markdown, each without the sign that begins it."""
    ends = _block_ends(text)
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        mark = _BLOCK.match(text, start, end)
        yield Span(mark.end() if mark else start, end)


def _block_ends(text: str) -> Sequence[int]:
    """Return where a block ends and another begins: before a sign of one, and behind a heading."""
    ends = {match.start() for match in _BLOCK.finditer(text)} | {match.end() for match in _HEADING.finditer(text)}
    return sorted(ends - {0, len(text)})
