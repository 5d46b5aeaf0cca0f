"""Seal a folder, so that its files cannot change unnoticed: ``manifest.json`` has each one's size and SHA-256."""

from __future__ import annotations

import errno
from collections.abc import Mapping
from pathlib import Path

from retrograd.types import UserError
from retrograd.util.fingerprints import fingerprint, sha256_of
from retrograd.util.guards import is_within
from retrograd.util.text_files import read_json, write_json

__all__ = ["find_flaw", "seal"]

_FILE = "manifest.json"


def seal(folder: Path) -> None:
    """Write ``folder/manifest.json`` over all files that are there. Reads all of them once."""
    files = {
        str(path.relative_to(folder)): {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    write_json(folder / _FILE, {"files": files, "checksum": _checksum(files)})


def find_flaw(folder: Path) -> str | None:
    """Describe what has changed since `seal`, manifest included; None where nothing has. Later files are ignored.

    Raises `OSError` for a file that is there and may not, or cannot, be read: that says nothing about the folder.
    """
    try:
        manifest = read_json(folder / _FILE)
    except UserError as error:
        if (folder / _FILE).is_file():
            (folder / _FILE).read_bytes()
        return str(error)
    files = manifest.get("files") if isinstance(manifest, dict) else None
    if not isinstance(manifest, dict) or not isinstance(files, dict) or manifest.get("checksum") != _checksum(files):
        return f"{_FILE} has changed since it was written"
    for name, checksum in files.items():
        path = folder / name
        if not is_within(folder, name):
            return f"{name!r} leads out of the folder"
        if not _is_file(path):
            return f"{name} is missing"
        size, digest = (checksum.get("bytes"), checksum.get("sha256")) if isinstance(checksum, dict) else (None, None)
        if path.stat().st_size != size:
            return f"{name} has {path.stat().st_size} bytes, but {size} were written"
        if sha256_of(path) != digest:
            return f"{name} has changed since it was written"
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:  # a name that no file has
            raise
        return False


def _checksum(files: Mapping[str, object]) -> str:
    return fingerprint(f"{name} {checksum}" for name, checksum in sorted(files.items()))
