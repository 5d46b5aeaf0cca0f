"""Versions of an index: a new one is written beside the old and takes its place in one step.

A root holds ``v000001/``, ``v000002/``, … and a small file ``current`` with the name of the version to read. Readers
follow ``current`` once, when they open an index, and then have its files mapped: on Linux a mapped file stays readable
when it is removed, so a version may go while it is being read.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from retrograd.index.disk.claims import Claims
from retrograd.types import UserError
from retrograd.util.files import atomic_file, find_current_or_backup, lock_folder

__all__ = [
    "build_folder",
    "current_version",
    "has_versions",
    "latest_version",
    "next_version",
    "prune",
    "read_current",
    "switch_forward",
    "switch_to",
    "versions",
    "write_version",
]

_CURRENT = "current"
_NAME = re.compile(r"v(\d{6,18})")

Opened = TypeVar("Opened")


def has_versions(root: Path) -> bool:
    """Return whether ``root`` is a folder of versions with one that can be read."""
    return (root / _CURRENT).is_file()


def versions(root: Path) -> list[Path]:
    """Return the folders of all versions, oldest first, whether or not they are current."""
    folders = [path for path in root.glob("v*") if _NAME.fullmatch(path.name) and path.is_dir()]
    return sorted(folders, key=_number)


def current_version(root: Path) -> Path:
    """Return the folder of the version to read. Raises `UserError` if there is none."""
    if not has_versions(root):
        raise UserError(f"{root} holds no finished index; build one with: retrograd index build RUN --out {root}")
    version = _current_version(root)
    if version is None:
        raise UserError(
            f"{root / _CURRENT} is damaged: it names no version that is there; "
            f"repair it with: retrograd index build RUN --out {root}"
        )
    return version


def latest_version(root: Path) -> Path | None:
    """Return the version to read, or the newest one if the file ``current`` is damaged; None if there is none."""
    if not has_versions(root):
        return None
    return _current_version(root) or max(versions(root), key=_number, default=None)


def next_version(root: Path) -> Path:
    """Return the folder of the version after the latest. It may exist already: finished, but never made current."""
    latest = latest_version(root)
    return root / f"v{1 if latest is None else _number(latest) + 1:06d}"


def switch_to(version: Path) -> None:
    """Make a finished version the current one; a reader sees either the old or the new name, never neither."""
    if has_versions(version.parent) and _current_version(version.parent) == version:
        return
    with atomic_file(version.parent / _CURRENT) as temporary:
        temporary.write_text(version.name + "\n", encoding="utf-8")


def build_folder(version: Path) -> Path:
    """Return the folder in which a version is built, which becomes it."""
    return version.with_name(f".{version.name}.build")


def switch_forward(version: Path) -> None:
    """Make a finished version the current one, unless a later one is that already."""
    latest = latest_version(version.parent)
    if latest is None or _number(latest) <= _number(version):
        switch_to(version)


def write_version(root: Path, save: Callable[[Path], None], keep: int = 2) -> Path:
    """Have ``save`` write the folder of the next version, make it current, and remove all but ``keep`` versions.

    ``save`` writes the folder complete or not at all, as the ``save`` of each index does; killed at any moment, the
    version before stays current. Returns the folder. Raises `UserError` where another process is writing a version.
    """
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root):
        target = next_version(root)
        if Claims(build_folder(target)).any_held():
            raise UserError(f"another process is building an index in {root}; wait until it ends, or stop it first")
        if target.exists():
            shutil.rmtree(target)  # finished and never made current, so nobody reads it
        save(target)
        switch_to(target)
        prune(root, keep)
        return target


def prune(root: Path, keep: int = 2) -> list[Path]:
    """Remove all versions but the current one and the ``keep`` - 1 before it, and return what was removed.

    One older version should stay: somebody may have read its name and not yet opened it.
    """
    if keep < 1:
        raise ValueError(f"keep is {keep}; expected at least 1")
    current = current_version(root)
    past = [version for version in versions(root) if _number(version) <= _number(current)]
    for version in past[:-keep]:
        shutil.rmtree(version)
    return past[:-keep]


def read_current(path: Path, read: Callable[[Path], Opened]) -> Opened:
    """Return ``read`` of a plain index folder, or of the current version of a root.

    Should two new versions come and the old one go between reading its name and opening it, the newest is read.
    """
    while has_versions(path):
        version = current_version(path)
        try:
            return read(version)
        except (UserError, OSError):
            if current_version(path) == version:
                raise
    return read(find_current_or_backup(path))


def _current_version(root: Path) -> Path | None:
    """Return the folder that the file ``current`` names, if it is that of a version."""
    name = (root / _CURRENT).read_bytes().decode(errors="replace").strip()
    return root / name if _NAME.fullmatch(name) and (root / name).is_dir() else None


def _number(version: Path) -> int:
    return int(version.name[1:])
