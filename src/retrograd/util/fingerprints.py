"""Fingerprints of texts and files: SHA-256, in hex.

A file of its own, because folders keep fingerprints: a change to how parts are framed makes every saved one differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

__all__ = ["fingerprint", "fingerprint_files", "sha256_of"]


def fingerprint(parts: Iterable[str | bytes]) -> str:
    """Return the SHA-256 (hex) of a sequence of strings or bytes; the boundaries between parts count."""
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """Return the SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint_files(paths: Iterable[Path]) -> str:
    """Return the SHA-256 (hex) over names and contents of files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
