"""What building an index will need, before it starts: passages, disk, memory, time; and a refusal if it cannot fit."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.types import UserError

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = [
    "BuildPlan",
    "free_disk",
    "free_memory",
    "peak_memory",
    "readable_bytes",
    "readable_seconds",
    "require_memory",
]

# Manifest and file system need a little as well.
_MARGIN_BYTES = 1 << 20
_MEMORY_INFO = Path("/proc/meminfo")
_CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class BuildPlan:
    """The needs of embedding ``remaining`` of ``passages`` passages to width ``dimension``.

    ``seconds_per_passage`` is measured on a probe; ``resident_bytes`` is the most memory this process has held, the
    probe included. ``free_disk`` and ``free_memory`` are bytes, None where the system does not tell. An index
    ``in_memory`` is held whole, any other goes to the folder ``place`` in memory that knows no N.
    """

    place: Path
    passages: int
    remaining: int
    dimension: int
    dtype: torch.dtype
    seconds_per_passage: float
    resident_bytes: int
    free_disk: int | None
    free_memory: int | None
    in_memory: bool = False

    @property
    def vector_bytes(self) -> int:
        """What all vectors take, on disk or in memory."""
        return self.passages * self.dimension * self.dtype.itemsize

    @property
    def remaining_bytes(self) -> int:
        """What is still to be written or held."""
        return self.remaining * self.dimension * self.dtype.itemsize

    @property
    def peak_bytes(self) -> int:
        """The most memory the process will hold."""
        return self.resident_bytes + (self.vector_bytes if self.in_memory else 0)

    @property
    def seconds(self) -> float:
        """The time that encoding will take."""
        return self.remaining * self.seconds_per_passage

    def __str__(self) -> str:
        """Three lines for people."""
        rate = f"{1 / self.seconds_per_passage:,.0f} passages/s" if self.seconds_per_passage > 0 else "rate unknown"
        done = self.passages - self.remaining
        where = "in memory" if self.in_memory else f"on disk, {_free(self.free_disk)}"
        return "\n".join(
            [
                f"{self.passages:,} passages x {self.dimension} numbers in {_name(self.dtype)}"
                + (f"; {done:,} are done, {self.remaining:,} remain" if done else ""),
                f"{readable_bytes(self.vector_bytes)} {where}; "
                f"{readable_bytes(self.peak_bytes)} of memory at most, {_free(self.free_memory)}",
                f"about {readable_seconds(self.seconds)} ({rate}, measured)",
            ]
        )

    def require_fit(self) -> None:
        """Raises `UserError` if what is still to come does not fit on the disk, or in memory if it is held there."""
        remedy = "free some space, choose another place, or halve it with bf16"
        if self.in_memory:
            _require_memory(self.remaining_bytes, self.free_memory)
        elif self.free_disk is not None and self.remaining_bytes + _MARGIN_BYTES > self.free_disk:
            raise UserError(
                f"the index needs {readable_bytes(self.remaining_bytes)} more in {self.place} and "
                f"{readable_bytes(self.free_disk)} are free there; {remedy}"
            )


def require_memory(count: int) -> None:
    """Raises `UserError` if vectors of ``count`` bytes do not fit in the memory that is free now."""
    _require_memory(count, free_memory())


def _require_memory(count: int, free: int | None) -> None:
    if free is not None and count > free:
        raise UserError(
            f"the vectors need {readable_bytes(count)} of memory and {readable_bytes(free)} are free; "
            "build the index on disk, or store bf16"
        )


def free_disk(place: Path) -> int:
    """Bytes free to us on the disk where ``place`` lies or will lie."""
    return shutil.disk_usage(next(folder for folder in (place, *place.resolve().parents) if folder.is_dir())).free


def free_memory() -> int | None:
    """Bytes of memory that can be had without swapping, at most the limit of the container; None where unknown."""
    found = [_available(), _limit()]
    known = [one for one in found if one is not None]
    return min(known) if known else None


def peak_memory() -> int:
    """The most memory (bytes) this process has held so far; 0 where the system does not tell."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def readable_bytes(count: int) -> str:
    """``1.5 GB``: decimal units, as disks are sold and df -H counts."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def readable_seconds(seconds: float) -> str:
    """``2 h 5 min``, ``3 min 20 s`` or ``12 s``: the two largest units."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _free(count: int | None) -> str:
    return "free space unknown" if count is None else f"{readable_bytes(count)} free"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _available() -> int | None:
    if _MEMORY_INFO.is_file():
        for line in _MEMORY_INFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf (Windows), or no such name (macOS)
        return None


def _limit() -> int | None:
    if not _CONTAINER_LIMIT.is_file():
        return None
    text = _CONTAINER_LIMIT.read_text(encoding="ascii").strip()
    return int(text) if text.isdigit() else None
