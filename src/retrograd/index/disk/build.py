"""Build an index on disk so that it survives being killed: shard by shard, each finished or absent.

The folder under construction lies hidden beside its target. A shard is written aside, renamed, and only then listed in
the manifest with its checksum; whatever is in the folder and not listed is a leftover. A shard is also the unit of
encoding: its vectors depend on its own rows alone, so a build that was killed and taken up again ends in the same
bytes as one that was not. The last step renames the folder, which is whole by then.
"""

from __future__ import annotations

import errno
import math
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from jaxtyping import Float
from torch import Tensor

from retrograd.index.disk.claims import Claims
from retrograd.index.disk.spec import SHARD_ROWS, IndexSpec, identity
from retrograd.index.disk.storage import (
    MANIFEST,
    Manifest,
    Shard,
    parse_manifest,
    read_shards,
    verify_shard,
    write_manifest,
    write_vectors,
)
from retrograd.index.disk.versions import (
    build_folder,
    current_version,
    latest_version,
    next_version,
    prune,
    switch_forward,
)
from retrograd.index.shards import checked_blocks
from retrograd.types import UserError
from retrograd.util.files import lock_folder
from retrograd.util.machine import free_disk, readable_bytes
from retrograd.util.progress import say

__all__ = [
    "SHARD_ROWS",
    "Encode",
    "IndexSpec",
    "ReportProgress",
    "build_vectors",
    "build_version",
    "count_discarded_bytes",
    "count_finished_rows",
    "count_remaining_rows",
]

_WAIT_SECONDS = 0.2
"""Between two looks at whether another process has finished, or died."""

Encode = Callable[[int, int], Iterable[Float[Tensor, "_ D"]]]
"""The vectors of rows first … stop - 1 in blocks; what they are may depend on these two numbers and nothing before."""

ReportProgress = Callable[[int], None]


def build_version(
    root: Path, spec: IndexSpec, encode: Encode, progress: ReportProgress | None = None, keep: int = 2
) -> Path:
    """Build the next version under ``root``, make it current, and remove all but ``keep`` versions.

    If the current version (the newest one, if the file ``current`` is damaged) is already what ``spec`` asks for, and
    whole, it is returned as it is. Several processes build one version together, as `build_vectors` says. Raises as
    that does; the current version stays what it was then.
    """
    root.mkdir(parents=True, exist_ok=True)
    with lock_folder(root, wait_seconds=math.inf):
        for leftover in root.glob(".current.*"):
            leftover.unlink()
        target = latest_version(root)
        if target is not None and _is_whole(target, spec):
            say(f"{root} is up to date")
        else:
            target = next_version(root)
            if target.exists() and not _is_whole(target, spec):
                shutil.rmtree(target)  # finished and never made current, so nobody reads it
    if not target.exists():
        build_vectors(target, spec, encode, progress)
    with lock_folder(root, wait_seconds=math.inf):
        with _explain_full_disk(target, spec):
            switch_forward(target)
        prune(root, keep)
        return current_version(root)


def build_vectors(target: Path, spec: IndexSpec, encode: Encode, progress: ReportProgress | None = None) -> None:
    """Make the folder ``target`` an index that `ExactIndex.load` maps; or go on where an earlier call was stopped.

    Several processes may do so at once, on one machine or over a shared folder: each claims one shard after the other,
    takes over what one that died had claimed, and returns when all is finished. The bytes are those of one process,
    as far as the processes encode alike.

    Shards that are finished are verified by their checksums, unless another process is at work, and kept; ``progress``
    gets their rows at once, and those of each new block as it comes. An unfinished build of something else is
    discarded, and said so. A ``target`` that is already there and what ``spec`` asks for is left alone.

    Raises `UserError` if something else is there, if another process is building something else there, for a row that
    is not finite, for a shard of zeros, and when the disk is full; what is finished stays.
    """
    if target.exists():
        if not _is_whole(target, spec):
            raise UserError(f"{target} exists and is not this index; remove it, or choose another folder")
        return
    folder = build_folder(target)
    folder.mkdir(parents=True, exist_ok=True)
    work = _Work(target, folder, spec, Claims(folder), progress)
    with _explain_full_disk(target, spec):
        work.begin()
        while not work.is_finished():
            work.encode_next(encode)


@dataclass
class _Work:
    """The part of one process in building ``folder``, which becomes ``target``. ``reported`` rows are known to
    ``progress``.
    """

    target: Path
    folder: Path
    spec: IndexSpec
    claims: Claims
    progress: ReportProgress | None
    reported: int = 0

    def begin(self) -> None:
        """Keep what is whole of an interrupted build and remove the rest; join one that other processes are at."""
        with self._locked():
            if self.target.exists():
                return
            if self.claims.any_held():
                _ = self._finished()  # which refuses to join in building something else
                return
            shards = _verify_shards(self.folder, self.spec)
            _remove_leftovers(self.folder, {shard.file for shard in shards})
            write_manifest(self.folder, self.spec.manifest(shards))

    def is_finished(self) -> bool:
        """Return whether the target is there, which is made of the folder where all shards are finished."""
        with self._locked():
            if self.target.exists():
                self._report(self.spec.rows)
                return True
            done = self._finished()
            self._report(sum(shard.rows for shard in done.values()))
            if len(done) < len(self.spec.ranges()):
                return False
            _remove_leftovers(self.folder, {shard.file for shard in done.values()})
            self.claims.remove()
            self.folder.replace(self.target)
            return True

    def encode_next(self, encode: Encode) -> None:
        """Encode one shard; where all that are left are claimed, wait a moment."""
        taken = self._take()
        if taken is None:
            time.sleep(_WAIT_SECONDS)
            return
        (file, first_row, rows), claim = taken
        with claim:
            blocks = self._report_blocks(encode(first_row, first_row + rows))
            checked = checked_blocks(blocks, rows, self.spec.dtype, first_row)
            width = self.spec.dimension
            checksum = write_vectors(self.folder / file, _require_width(checked, width), rows, width, self.spec.dtype)
            with self._locked():
                shards = self._finished() | {first_row: Shard(file, first_row, rows, checksum)}
                write_manifest(self.folder, self.spec.manifest(shards.values()))

    def _take(self) -> tuple[tuple[str, int, int], ExitStack] | None:
        """Claim the first shard that is neither finished nor claimed; None where there is none."""
        with self._locked():
            if self.target.exists():
                return None
            done = self._finished()
            for one in self.spec.ranges():
                file, first_row, _ = one
                if first_row not in done and (claim := self.claims.take(file)) is not None:
                    return one, claim
        return None

    def _finished(self) -> dict[int, Shard]:
        """Return the finished shards by their first rows. Raises `UserError` where they are of another index."""
        manifest = _read_manifest(self.folder)
        difference = "manifest" if manifest is None else self.spec.difference(manifest)
        if manifest is None or difference is not None:
            raise UserError(
                f"{self.folder}: another process is building something else there (another "
                f"{str(difference).replace('_', ' ')}); wait until it ends, or choose another folder"
            )
        return {shard.first_row: shard for shard in _matching_shards(manifest, self.spec)}

    def _locked(self) -> AbstractContextManager[None]:
        """Keep other processes out for a moment, in which this one reads and changes what all of them see."""
        return lock_folder(self.folder, _lock_file(self.folder), wait_seconds=math.inf)

    def _report(self, finished: int) -> None:
        """Report rows that are finished, by whichever process, and were not reported yet."""
        if self.progress is not None and finished > self.reported:
            self.progress(finished - self.reported)
        self.reported = max(self.reported, finished)

    def _report_blocks(self, blocks: Iterable[Float[Tensor, "_ _"]]) -> Iterator[Float[Tensor, "_ _"]]:
        for block in blocks:
            yield block
            if self.progress is not None:
                self.progress(len(block))
            self.reported += len(block)


def count_finished_rows(target: Path, spec: IndexSpec) -> int:
    """Return how many rows an unfinished build of ``target`` has finished, by its manifest, unverified."""
    return sum(shard.rows for shard in _usable_shards(target if target.exists() else build_folder(target), spec))


def count_remaining_rows(root: Path, spec: IndexSpec) -> int:
    """Return how many rows `build_version` will still encode under ``root``, by the manifests, unverified."""
    places = (latest_version(root), next_version(root))
    return spec.rows - max(count_finished_rows(place, spec) for place in places if place is not None)


def count_discarded_bytes(root: Path, spec: IndexSpec) -> int:
    """Return how many bytes of useless unfinished builds `build_version` removes under ``root`` before it encodes.

    By the manifests: nothing is verified yet. The current version is not among them, for it is read until the next one
    is whole.
    """
    target = next_version(root)
    count = 0
    for folder in (target, build_folder(target)):
        useful = {shard.file for shard in _usable_shards(folder, spec)}
        useful |= {MANIFEST} if useful else set()
        for path in folder.glob("*"):
            if path.name not in useful:
                with suppress(FileNotFoundError):  # another process builds here, and will be met at the lock
                    count += path.stat().st_size
    return count


def _usable_shards(folder: Path, spec: IndexSpec) -> list[Shard]:
    """Return the shards of a folder that can be kept, by its manifest alone."""
    manifest = _read_manifest(folder)
    return [] if manifest is None or spec.difference(manifest) is not None else _matching_shards(manifest, spec)


def _lock_file(folder: Path) -> Path:
    """Return the lock file of a folder under construction, which lies beside it because the folder becomes the
    index.
    """
    return folder.with_name(f"{folder.name}.lock")


def _read_manifest(folder: Path) -> Manifest | None:
    """Return the manifest of a folder, or None where it cannot be read and nothing can be kept."""
    try:
        return parse_manifest(folder)
    except UserError:
        return None


def _is_whole(folder: Path, spec: IndexSpec) -> bool:
    """Return whether a finished folder holds what ``spec`` asks for, each file as it was written."""
    manifest = _read_manifest(folder)
    if manifest is None or spec.difference(manifest) is not None or not manifest.shards:
        return False
    try:
        for shard in manifest.shards:
            verify_shard(folder, shard)
        read_shards(folder, manifest)
    except UserError as error:
        say(f"{error}; it is built again")
        return False
    return True


def _verify_shards(folder: Path, spec: IndexSpec) -> list[Shard]:
    """Verify and return the shards of an interrupted build that can be kept; print what is kept and what is not."""
    manifest = _read_manifest(folder)
    if manifest is None:
        return []
    difference = spec.difference(manifest)
    if difference is not None:
        say(
            f"{folder}: an unfinished build had another {difference.replace('_', ' ')} "
            f"({_shorten(identity(manifest)[difference])}, now {_shorten(identity(spec.manifest())[difference])}); "
            f"it is discarded"
        )
        (folder / MANIFEST).unlink()
        return []
    verified = []
    for shard in _matching_shards(manifest, spec):
        try:
            verify_shard(folder, shard)
            read_shards(folder, replace(manifest, rows=shard.rows, shards=(replace(shard, first_row=0),)))
            verified.append(shard)
        except UserError as error:
            say(f"{error}; its rows are embedded again")
    write_manifest(folder, spec.manifest(verified))  # before the leftovers go: a listed shard is a shard that is there
    if verified:
        say(f"{folder}: continuing with {sum(shard.rows for shard in verified):,} of {spec.rows:,} rows done")
    return verified


def _matching_shards(manifest: Manifest, spec: IndexSpec) -> list[Shard]:
    """Return the shards that ``spec`` would write too; another ``shard_rows`` gives different ones."""
    ranges = set(spec.ranges())
    return [shard for shard in manifest.shards if (shard.file, shard.first_row, shard.rows) in ranges]


def _shorten(value: object) -> str:
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text  # a SHA-256


def _remove_leftovers(folder: Path, used: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in used | {MANIFEST}:
            path.unlink()


def _require_width(blocks: Iterable[Float[Tensor, "_ _"]], width: int) -> Iterator[Float[Tensor, "_ _"]]:
    for block in blocks:
        if block.shape[1] != width:
            raise UserError(
                f"the encoder gives vectors of width {block.shape[1]}, expected {width}; check its settings"
            )
        yield block


def _missing_bytes(target: Path, spec: IndexSpec) -> int:
    return (spec.rows - count_finished_rows(target, spec)) * spec.dimension * spec.dtype.itemsize


def _remedy(target: Path, spec: IndexSpec) -> str:
    """Return advice for a full disk: it may lack space, or, with space left, inodes or quota."""
    if free_disk(target) <= _missing_bytes(target, spec):
        return "free some space"
    return "there is enough space, so inodes (df -i) or your quota are used up: free some"


@contextmanager
def _explain_full_disk(target: Path, spec: IndexSpec) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        full = f"the disk of {target.parent} is full ({os.strerror(error.errno)})"
        remedy = f"{_remedy(target, spec)} and repeat the command"
        finished = count_finished_rows(target, spec)
        if finished == spec.rows:
            raise UserError(
                f"{full}: all {finished:,} rows are finished and kept, only a last small file is missing; {remedy}"
            ) from None
        needed = _missing_bytes(target, spec)
        raise UserError(
            f"{full}: {needed} more bytes ({readable_bytes(needed)}) are needed, {free_disk(target)} are free; "
            f"the {finished:,} finished rows are kept: {remedy}"
        ) from None
