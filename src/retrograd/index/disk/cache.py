"""Keep embeddings in the user's cache folder by what they were computed from, up to a size; the oldest use goes first.

An entry is the folder of an exact index, named by a hash of all that decides its bytes (`VectorCache.fetch`); it is
written as any index on disk is (`retrograd.index.disk.build`): complete or not there, and continued after a kill. Each
entry has a lock, so that of several processes one computes and the others wait for it. An entry that is removed stays
readable where it is mapped (Linux).
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.index.disk.build import Encode, IndexSpec, ReportProgress, build_vectors
from retrograd.index.disk.claims import Claims
from retrograd.index.disk.storage import MANIFEST, parse_manifest, verify_shard
from retrograd.index.exact import ExactIndex
from retrograd.types import UserError
from retrograd.util.files import cache_folder, lock_folder
from retrograd.util.fingerprints import fingerprint
from retrograd.util.machine import free_disk, readable_bytes
from retrograd.util.progress import say

__all__ = ["CacheEntry", "VectorCache", "parse_bytes"]

_SIZE_VARIABLE = "RETROGRAD_CACHE_SIZE"
_DEFAULT_BYTES = 20 * 10**9
_FOLDER = "embeddings"
_ENTRY = re.compile(r"\.?[0-9a-f]{32}(\.build)?")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]?)B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True)
class CacheEntry:
    """An entry, or what a killed process left of one: its folder, its bytes, and when it was last used (Unix time)."""

    folder: Path
    bytes: int
    used: float


class VectorCache:
    """Embeddings in the folder ``root``, no more than ``limit`` bytes of them after each addition."""

    def __init__(self, root: Path, limit: int) -> None:
        self.root = root
        self.limit = limit

    @classmethod
    def of_user(cls) -> VectorCache:
        """Return the cache in the user's cache folder, of ``$RETROGRAD_CACHE_SIZE`` (such as 50GB; 0 keeps nothing).

        The default is 20 GB. Raises `UserError` for a size that cannot be read.
        """
        size = os.environ.get(_SIZE_VARIABLE)
        limit = _DEFAULT_BYTES if size is None else parse_bytes(size, f"${_SIZE_VARIABLE}")
        return cls(cache_folder() / _FOLDER, limit)

    # ---- what a run asks --------------------------------------------------------------------------------------------

    def fetch(
        self,
        spec: IndexSpec,
        encode: Encode,
        progress: ReportProgress | None = None,
        device: torch.device | str = "cpu",
    ) -> ExactIndex | None:
        """Return the vectors that ``spec`` describes; where they are not here, compute and keep them.

        On a CPU they are mapped, to another ``device`` they are copied. ``spec`` names everything that decides the
        bytes. Where another process computes the same, this one waits.
        Returns None, with a message, where the cache cannot be used: too small, not writable, or its disk is full.
        """
        needed = spec.rows * spec.dimension * spec.dtype.itemsize
        if needed > self.limit:
            if self.limit > 0:
                say(
                    f"{readable_bytes(needed)} of embeddings are not kept for later runs: the cache is limited to "
                    f"{readable_bytes(self.limit)} ({_SIZE_VARIABLE})"
                )
            return None
        folder = self.root / _key(spec)
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with self._lock(folder, wait=True):
                if not _is_usable(folder, spec):
                    self._make_room(folder, needed)
                    build_vectors(folder, spec, encode, progress)
                os.utime(folder / MANIFEST)
                index = ExactIndex.load(folder, device=device)
        except OSError as error:
            say(f"the embeddings are not kept for later runs: {self.root} cannot be used ({error})")
            return None
        self.prune(self.limit, keep=folder)
        return index

    def holds(self, spec: IndexSpec) -> bool:
        """Return whether `fetch` would find the vectors, as far as their manifest tells."""
        try:
            return spec.difference(parse_manifest(self.root / _key(spec))) is None
        except UserError:
            return False

    # ---- what a person asks -----------------------------------------------------------------------------------------

    def entries(self) -> list[CacheEntry]:
        """Return all entries, and what killed processes left of some; the one whose last use is longest ago first."""
        folders = [path for path in self.root.glob("*") if _ENTRY.fullmatch(path.name) and path.is_dir()]
        entries = [entry for entry in map(_describe, folders) if entry is not None]
        return sorted(entries, key=lambda entry: (entry.used, entry.folder.name))

    def prune(self, limit: int, keep: Path | None = None) -> list[CacheEntry]:
        """Remove entries, the oldest use first, until at most ``limit`` bytes remain; return what was removed.

        Entries that another process is reading or writing just now stay, and so does the folder ``keep``.
        """
        entries = self.entries()
        total = sum(entry.bytes for entry in entries)
        removed: list[CacheEntry] = []
        for entry in entries:
            if total <= limit:
                break
            if entry.folder != keep and self._remove(entry.folder):
                removed.append(entry)
                total -= entry.bytes
        return removed

    def _make_room(self, folder: Path, needed: int) -> None:
        """Remove a damaged entry, and old ones for which the disk has no room beside the new one.

        Raises `OSError` where there is not enough room even so.
        """
        shutil.rmtree(folder, ignore_errors=True)
        while free_disk(self.root) < needed:
            others = [entry for entry in self.entries() if folder.name not in entry.folder.name]
            if not any(self._remove(entry.folder) for entry in others[:1]):
                raise OSError(f"{readable_bytes(needed)} are needed, {readable_bytes(free_disk(self.root))} are free")

    def _remove(self, folder: Path) -> bool:
        """Remove an entry; return False where another process holds it."""
        try:
            with self._lock(folder):
                Claims(folder).remove()
                shutil.rmtree(folder)
        except (UserError, OSError):
            return False
        return True

    @contextmanager
    def _lock(self, folder: Path, *, wait: bool = False) -> Iterator[None]:
        """Lock an entry and what is being written of it: both by the name of the entry.

        Raises `UserError` where another process holds it, unless it is to ``wait``, with a message, for that.
        """
        name = folder.name.removeprefix(".").removesuffix(".build")
        lock_file = self.root / f".{name}.lock"
        with ExitStack() as locks:
            try:
                locks.enter_context(lock_folder(folder, lock_file))
            except UserError:
                if not wait:
                    raise
                say("another process is at work on the embeddings of these passages; waiting for it")
                locks.enter_context(lock_folder(folder, lock_file, wait_seconds=math.inf))
            yield


def parse_bytes(text: str, name: str) -> int:
    """Return the bytes of a size such as ``500MB``, ``20GB`` or ``0``; raises `UserError` with ``name`` otherwise."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise UserError(f"{name} is {text!r}; expected a size such as 500MB, 20GB or 0")
    return round(float(match[1]) * _UNITS[match[2]])


def _key(spec: IndexSpec) -> str:
    """Return the name of an entry: half a SHA-256 of all that two equal ones have in common."""
    described = (spec.base_fingerprint, spec.encoder_fingerprint, spec.encoding, str(spec.dtype))
    return fingerprint([*described, str(spec.rows), str(spec.dimension)])[:32]


def _is_usable(folder: Path, spec: IndexSpec) -> bool:
    """Return whether an entry is there and its bytes are those that were written; they are all read for that."""
    if not folder.exists():
        return False
    try:
        manifest = parse_manifest(folder)
        for shard in manifest.shards:
            verify_shard(folder, shard)
    except UserError as error:
        say(f"{error}; it is computed again")
        return False
    return spec.difference(manifest) is None and sum(shard.rows for shard in manifest.shards) == spec.rows


def _describe(folder: Path) -> CacheEntry | None:
    """Return an entry; None where it is gone meanwhile."""
    with suppress(OSError):
        files = [path.stat() for path in folder.iterdir() if path.is_file()]
        stamp = folder / MANIFEST
        used = stamp.stat().st_mtime if stamp.exists() else folder.stat().st_mtime
        return CacheEntry(folder, sum(file.st_size for file in files), used)
    return None
