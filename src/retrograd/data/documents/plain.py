"""Read plain text: a document without headings, whose characters count as in `Path.read_text`."""

from __future__ import annotations

from pathlib import Path

from retrograd.data.documents.sections import Document, Section
from retrograd.types import UserError
from retrograd.util.guards import require_file
from retrograd.util.packed_files import DAMAGES, open_text_bytes

__all__ = ["plain_line_ends", "read_plain", "read_unpacked", "read_whole_text"]


def read_plain(path: Path) -> Document:
    """Return a file of plain text as one section. Raises `UserError` for a file that is no UTF-8 or UTF-16."""
    text = read_whole_text(path)
    return Document("", [Section(text, 0, len(text))])


def read_whole_text(path: Path) -> str:
    """Return the text of a file, with line ends that are ``\\n`` alone and without a byte order mark.

    Raises `UserError` for a file that is missing, damaged or no text.
    """
    raw = read_unpacked(path)
    try:
        return plain_line_ends(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: not UTF-8 (byte {error.start + 1}); re-save the file as UTF-8") from None


def read_unpacked(path: Path) -> bytes:
    """Return the bytes of a file, unpacked, and of UTF-16 and UTF-32 those of UTF-8.

    Raises `UserError` for a file that is missing, damaged or plainly no text.
    """
    require_file(path)
    try:
        with open_text_bytes(path) as file:
            return file.read()
    except DAMAGES as error:
        raise UserError(f"{path}: damaged ({error}); fetch it or compress it again") from None


def plain_line_ends(text: str) -> str:
    """Return a text whose lines end with ``\\n``, without a byte order mark."""
    return text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
