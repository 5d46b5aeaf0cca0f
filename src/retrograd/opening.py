"""Before a file is read: whether it is one; and compressed files, never for more memory than their size warrants."""

from __future__ import annotations

import gzip
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader, RawIOBase
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from retrograd.suggestions import advice
from retrograd.types import UserError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

__all__ = ["is_file_name", "is_within", "open_packed", "require_file"]

# Text shrinks 3 to 30 times, and nothing more than 1,032 times. A bomb of one line would be held in memory whole.
_MOST_GROWTH = 200
_SURE_BYTES = 1 << 23
_BUFFER_BYTES = 1 << 17


def require_file(path: Path) -> None:
    """Raises `UserError` unless ``path`` is a readable file."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"no such file: {path}; {_beside(path)}") from None
    except (OSError, ValueError) as error:  # a name too long, links in a circle, a name with a NUL
        raise UserError(f"{str(path)[:200]!r} cannot be read ({error}); check the path") from None
    if stat.S_ISDIR(mode):
        raise UserError(f"{path} is a folder; expected a file")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path} is a pipe or a device, and files are read more than once; save it as a file first")
    if not os.access(path, os.R_OK):
        raise UserError(f"{path} may not be read (permission denied); check its permissions with ls -l")


def _beside(path: Path) -> str:
    """What stands where a missing file was looked for: the nearest name, else some of them."""
    if not path.parent.is_dir():
        return f"the folder {path.parent} does not exist"
    names = sorted(one.name for one in path.parent.iterdir() if not one.name.startswith("."))
    return advice(path.name, names) if names else f"the folder {path.parent} is empty"


def is_file_name(name: str) -> bool:
    """Whether ``name`` is that of a file in whatever folder, and leads nowhere else by itself."""
    return Path(name).name == name and name not in ("", "..") and "\0" not in name and len(name) < 256


def is_within(folder: Path, name: str) -> bool:
    """Whether ``name``, read from a file of ``folder``, leads to something in that folder, symbolic links followed."""
    try:
        return (folder / name).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # a name with a NUL, links in a circle
        return False


@contextmanager
def open_packed(path: Path) -> Iterator[BinaryIO]:
    """The bytes that a ``.gz`` file was made from.

    Reading raises `UserError` once more than 8 MiB have come out of less than a 200th of it, and `OSError`, `EOFError`
    or `zlib.error` where the file is damaged.
    """
    with path.open("rb") as file, BufferedReader(_Unpacked(path, file), _BUFFER_BYTES) as unpacked:
        yield unpacked


class _Unpacked(RawIOBase):
    def __init__(self, path: Path, file: BinaryIO) -> None:
        self._path = path
        self._file = file
        self._unpacked = gzip.GzipFile(fileobj=file, mode="rb")
        self._count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer, /) -> int:
        count = self._unpacked.readinto(buffer)
        self._count += count
        if self._count > max(_SURE_BYTES, _MOST_GROWTH * self._file.tell()):
            raise UserError(
                f"{self._path}: what it unpacks to is more than {_MOST_GROWTH} times as large, and no text is; fetch "
                f"it again, or unpack it (gunzip) and look at it"
            )
        return count
