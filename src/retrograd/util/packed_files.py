"""Files as UTF-8 bytes, whatever they are packed or encoded in: told by their first bytes, not by their names.

Read are gzip, xz and bzip2, and within them UTF-8, UTF-16 and UTF-32 with a byte order mark, or UTF-16 without one
where the text begins with ASCII. What is no text at all is refused with the name of its kind and a remedy. (pyarrow
unpacks Zstandard, too, but takes a file that was cut off for a whole one.)
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedIOBase, BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.types import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["DAMAGES", "is_plain_text", "open_text_bytes"]

DAMAGES = (OSError, EOFError, zlib.error, lzma.LZMAError)
"""What reading raises where a packed file is damaged."""

# Text shrinks 3 to 30 times, and nothing more than 1,032 times. A bomb of one line would be held in memory whole.
_MOST_GROWTH = 200
_SURE_BYTES = 1 << 23
_BUFFER_BYTES = 1 << 17
_PEEKED_BYTES = 512

_PACKINGS = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\0": "xz", b"BZh": "bzip2"}
_SUFFIXES = {".gz": "gzip", ".xz": "xz", ".bz2": "bzip2"}
_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark it begins with
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_TABLE = "read it with pyarrow and give the table to rg.read_passages, rg.read_questions …, or save it as JSON Lines"
_OTHERS = {
    b"\x28\xb5\x2f\xfd": ("compressed with Zstandard", "unpack it (zstd -d), or pack it with gzip"),
    b"PAR1": ("a Parquet file", _TABLE),
    b"ARROW1": ("an Arrow file", _TABLE),
    b"\xff\xff\xff\xff": ("an Arrow stream", _TABLE),
    b"PK\x03\x04": ("a ZIP archive, or a spreadsheet", "unpack it (unzip), or save the sheet as text with tabs"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", "unpack it (7z x)"),
    b"%PDF": ("a PDF", "as a base it is read where its name ends in .pdf; for other data extract its text first"),
    b"\x89HDF": ("an HDF5 file", "save its records as JSON Lines"),
    b"SQLite format 3": ("an SQLite database", "save its records as JSON Lines"),
    b"\x80\x04\x95": ("a Python pickle", "it is not opened, as it may run code; save its records as JSON Lines"),
}


def is_plain_text(path: Path) -> bool:
    """Return whether a file is text as it is, judged by its beginning: UTF-8, and not compressed."""
    with path.open("rb") as file:
        beginning = file.read(_PEEKED_BYTES)
    return _is_text(beginning) and not any(beginning.startswith(mark) for mark in _PACKINGS)


@contextmanager
def open_text_bytes(path: Path) -> Iterator[BufferedIOBase]:
    """Open the UTF-8 bytes of a text file.

    Reading raises `UserError` once more than 8 MiB have come out of less than a 200th of it, and one of `DAMAGES` where
    the file is damaged. Raises `UserError` for a file that is no text.
    """
    with path.open("rb") as file:
        beginning = file.read(_PEEKED_BYTES)
        file.seek(0)
        packing = _packing(path, beginning)
        if packing is None:
            _require_text(path, beginning)
            source = file
        else:
            source = BufferedReader(_Unpacked(path, file, _unpack(file, packing)), _BUFFER_BYTES)
            beginning = source.peek(_PEEKED_BYTES)[:_PEEKED_BYTES]
            _require_text(path, beginning)
        encoding = _encoding(beginning)
        yield source if encoding is None else BufferedReader(_Recoded(path, source, encoding), _BUFFER_BYTES)


def _packing(path: Path, beginning: bytes) -> str | None:
    """Return how a file is compressed: what it begins with or, where that is no text, what its name says."""
    for mark, packing in _PACKINGS.items():
        if beginning.startswith(mark):
            return packing
    is_text = _is_text(beginning) or _encoding(beginning) is not None
    return None if is_text else _SUFFIXES.get(path.suffix.lower())


def _is_text(beginning: bytes) -> bool:
    """Return whether a file may go on as UTF-8 text; the last character may be cut."""
    try:
        codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return False
    return b"\0" not in beginning


def _unpack(file: BufferedReader, packing: str) -> BufferedIOBase:
    if packing == "gzip":
        return gzip.GzipFile(fileobj=file, mode="rb")
    return lzma.LZMAFile(file) if packing == "xz" else bz2.BZ2File(file)


def _require_text(path: Path, beginning: bytes) -> None:
    for mark, (kind, remedy) in _OTHERS.items():
        if beginning.startswith(mark):
            raise UserError(f"{path} is {kind}; {remedy}")


def _encoding(beginning: bytes) -> str | None:
    """Return the encoding of a text that is not UTF-8, as far as its beginning shows it."""
    for mark, encoding in _MARKS.items():
        if beginning.startswith(mark):
            return encoding
    even, odd = beginning[:8:2], beginning[1:8:2]
    if len(odd) >= 2 and not any(odd) and all(even):
        return "utf-16-le"
    return "utf-16-be" if len(odd) >= 2 and not any(even) and all(odd) else None


class _Unpacked(RawIOBase):
    """Stream of the bytes that a compressed file unpacks to, which refuses more than text can grow to."""

    def __init__(self, path: Path, file: BufferedIOBase, unpacked: BufferedIOBase) -> None:
        self._path = path
        self._file = file
        self._unpacked = unpacked
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        content = self._unpacked.read(len(view))
        view[: len(content)] = content
        self._count += len(content)
        if self._count > max(_SURE_BYTES, _MOST_GROWTH * self._file.tell()):
            raise UserError(
                f"{self._path}: its unpacked content is more than {_MOST_GROWTH} times as large, which text never is; "
                f"download it again, or unpack it (gunzip) and look at it"
            )
        return len(content)


class _Recoded(RawIOBase):
    """The UTF-8 bytes of a text in another encoding."""

    def __init__(self, path: Path, source: BufferedIOBase, encoding: str) -> None:
        self._path = path
        self._source = source
        self._encoding = encoding
        self._decoder = codecs.getincrementaldecoder(encoding)()
        self._rest = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        view = memoryview(buffer).cast("B")
        is_end = False
        while not self._rest and not is_end:
            content = self._source.read(_BUFFER_BYTES)
            is_end = not content
            try:
                self._rest = self._decoder.decode(content, final=is_end).encode()
            except UnicodeDecodeError as error:
                message = f"{self._path}: not {self._encoding.upper()} throughout ({error.reason}), as it begins"
                raise UserError(f"{message}; re-save the file as UTF-8") from None
        count = min(len(view), len(self._rest))
        view[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
