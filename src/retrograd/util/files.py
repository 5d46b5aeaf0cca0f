"""Files and folders that are written whole or not at all, and locks that keep other processes out."""

from __future__ import annotations

import errno
import itertools
import math
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from retrograd.types import UserError

__all__ = [
    "LOCK_FILE",
    "advise_on_writing",
    "atomic_directory",
    "atomic_file",
    "cache_folder",
    "find_current_or_backup",
    "is_unfinished",
    "lock_folder",
    "open_to_umask",
    "remove_unfinished",
    "unused_folder",
]

LOCK_FILE = ".lock"
_UNFINISHED = ".tmp"


_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_NO_PERMISSION = frozenset({errno.EROFS, errno.EACCES, errno.EPERM})


def advise_on_writing(error: Exception) -> str:
    """Return what to do about an error of writing; "" where nothing is known."""
    number = error.errno if isinstance(error, OSError) else None
    if number in _NO_PERMISSION:
        return "check its permissions, or choose another folder"
    # safetensors and tokenizers pass the system's message on, but not its number
    told = any(os.strerror(code) in str(error) for code in _NO_ROOM)
    return "make room there" if number in _NO_ROOM or told else ""


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Provide a temporary path beside ``path`` that replaces it if the block succeeds, and is removed otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED)
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
    """Provide a temporary folder that becomes ``path``, complete, if the block succeeds; an older ``path`` is replaced.

    No portable system call replaces one folder by another, so the older one is first renamed to a backup. If the
    process is killed just then, `find_current_or_backup` finds the backup, and the next writer restores it.

    Raises `UserError` if ``path`` is a file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        raise UserError(f"{path} is a file; expected a folder, or nothing there yet")
    backup = _backup_path(path)
    if backup.parent.exists():
        if backup.exists() and not path.exists():
            backup.replace(path)
        shutil.rmtree(backup.parent)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=_UNFINISHED))
    try:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if not path.exists():
            temporary.replace(path)
            return
        backup.parent.mkdir()
        path.replace(backup)
        try:
            temporary.replace(path)
        except BaseException:
            backup.replace(path)
            backup.parent.rmdir()
            raise
        backup.parent.replace(temporary)  # in one step: a half-removed folder must not be taken for the older one
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_unfinished(path: Path) -> bool:
    """Return whether a file or folder is one that `atomic_file` or `atomic_directory` had not finished."""
    return path.name.startswith(".") and path.name.endswith(_UNFINISHED)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished in ``folder`` and below; no other process may be writing there."""
    for path in [one for one in folder.rglob(f".*{_UNFINISHED}") if is_unfinished(one)]:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def find_current_or_backup(path: Path) -> Path:
    """Return where to read a folder that `atomic_directory` writes: ``path``, or its backup while it is being replaced.

    Returns ``path`` itself where neither exists.
    """
    backup = _backup_path(path)
    return backup if not path.exists() and backup.exists() else path


def unused_folder(path: Path) -> Path:
    """Return the path, or where there is something already the first of ``path-2``, ``path-3`` … that is free."""
    numbered = (path.with_name(f"{path.name}-{i}") for i in itertools.count(2))
    return next(free for free in itertools.chain([path], numbered) if not free.exists())


def _backup_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.old") / path.name


@contextmanager
def lock_folder(folder: Path, lock_file: Path | None = None, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Keep other processes that ask for the same lock out of ``folder``; the system lifts it when a process dies.

    ``lock_file`` holds the lock: by default ``.lock`` in the folder, which keeps it through a renaming. It is removed
    at the end, and a later process takes over one that a killed process left. Raises `UserError` if another process
    still holds the lock after ``wait_seconds``, which may be infinite.
    """
    path = folder / LOCK_FILE if lock_file is None else lock_file
    lock = FileLock(path, timeout=wait_seconds if math.isfinite(wait_seconds) else -1)
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


def cache_folder() -> Path:
    """Return the user's folder for what can be computed again.

    It is ``$RETROGRAD_CACHE``, else ``$XDG_CACHE_HOME/retrograd``, else ``~/.cache/retrograd``.
    """
    if own := os.environ.get("RETROGRAD_CACHE"):
        return Path(own)
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "retrograd"
