"""Plan of building an index: passages, disk, memory and time, and an error beforehand if it cannot fit."""

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
    "container_memory",
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
_MEMBERSHIP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


@dataclass(frozen=True)
class BuildPlan:
    """The needs of embedding ``remaining`` of ``passages`` passages to width ``dimension``, into the folder ``place``.

    ``seconds_per_passage`` is measured on a probe; ``resident_bytes`` is the most memory this process has held, the
    encoder and the probe included. From there on the build adds one block of ``block_rows`` passages at a time, which
    goes to the disk as it comes; longer texts than the probe's may take more, so memory is said with an "about".
    ``free_disk`` (with what the build will discard first) and ``free_memory`` are bytes, after the probe; None where
    the system does not tell.
    """

    place: Path
    passages: int
    remaining: int
    dimension: int
    dtype: torch.dtype
    block_rows: int
    seconds_per_passage: float
    resident_bytes: int
    free_disk: int | None
    free_memory: int | None

    @property
    def vector_bytes(self) -> int:
        """Return the bytes that all vectors take on disk."""
        return self.passages * self.dimension * self.dtype.itemsize

    @property
    def remaining_bytes(self) -> int:
        """Return the bytes still to be written."""
        return self.remaining * self.dimension * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """Return the bytes that the vectors of a block take: as computed and in the order of rows, both in fp32, and as
        stored.
        """
        return min(self.block_rows, self.passages) * self.dimension * (4 + 4 + self.dtype.itemsize)

    @property
    def peak_bytes(self) -> int:
        """Return about the peak memory of the process, in bytes."""
        return self.resident_bytes + self.block_bytes

    @property
    def seconds(self) -> float:
        """Return the seconds that encoding will take."""
        return self.remaining * self.seconds_per_passage

    def __str__(self) -> str:
        """Return the plan as three readable lines."""
        rate = f"{1 / self.seconds_per_passage:,.0f} passages/s" if self.seconds_per_passage > 0 else "rate unknown"
        finished = self.passages - self.remaining
        return "\n".join(
            [
                f"{self.passages:,} passages x {self.dimension} numbers in {_dtype_name(self.dtype)}"
                + (
                    f"; {finished:,} are done if undamaged (checked next), {self.remaining:,} remain"
                    if finished
                    else ""
                ),
                f"{readable_bytes(self.vector_bytes)} on disk, {_describe_free(self.free_disk)}; "
                f"about {readable_bytes(self.peak_bytes)} of memory (from the probe), "
                f"{_describe_free(self.free_memory)}",
                f"about {readable_seconds(self.seconds)} ({rate}, measured)",
            ]
        )

    def require_fit(self) -> None:
        """Raise `UserError` if what is still to come does not fit on the disk, or a block of it in memory.

        Encoder and probe are held or were held when memory was measured, so a block is what is added to them.
        """
        if self.remaining == 0:
            return
        if self.free_disk is not None and self.remaining_bytes + _MARGIN_BYTES > self.free_disk:
            remedies = ["free some space", "choose another place"]
            remedies += ["halve it with bf16"] if self.dtype.itemsize > 2 else []
            raise UserError(
                f"the index needs {readable_bytes(self.remaining_bytes)} more in {self.place}, and "
                f"{readable_bytes(_MARGIN_BYTES)} beside it for small files; {readable_bytes(self.free_disk)} are free "
                f"there; {', '.join(remedies[:-1])} or {remedies[-1]}"
            )
        if self.free_memory is not None and self.block_bytes > self.free_memory:
            raise UserError(
                f"a block of {self.block_rows:,} passages takes {readable_bytes(self.block_bytes)} of memory and "
                f"{readable_bytes(self.free_memory)} are free; stop other programs, or raise the container's limit"
            )


def require_memory(count: int) -> None:
    """Raise `UserError` if vectors of ``count`` bytes do not fit in the memory that is free now."""
    free = free_memory()
    if free is not None and count > free:
        raise UserError(
            f"the vectors need {readable_bytes(count)} of memory and {readable_bytes(free)} are free; "
            "build the index on disk, or store bf16"
        )


def free_disk(place: Path) -> int:
    """Return the bytes that we may use on the disk where ``place`` lies or will lie."""
    return shutil.disk_usage(next(folder for folder in (place, *place.resolve().parents) if folder.is_dir())).free


def free_memory() -> int | None:
    """Return the bytes of memory available without swapping, in the container we run in; None where unknown."""
    limits = [limit for limit in (_available_memory(), container_memory()) if limit is not None]
    return min(limits, default=None)


def container_memory(membership: Path = _MEMBERSHIP, root: Path = _CGROUPS) -> int | None:
    """Return the bytes of memory that our control groups (Linux cgroups 1 and 2) still allow; None without a limit.

    ``membership`` names the groups we are in, which lie under ``root``; each limit on the way up to the root holds. In
    a container the names may be those of the host and not be found: then the root is the container's own group.
    """
    if not membership.is_file():
        return None
    limits: list[int | None] = []
    for line in membership.read_text(encoding="utf-8").splitlines():
        _, controllers, name = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        top, files = (root / "memory", _VERSION_1) if controllers else (root, _VERSION_2)
        own = top / name.lstrip("/")
        limits += [_cgroup_memory(folder, *files) for folder in (own, *own.parents) if folder.is_relative_to(top)]
    return min((limit for limit in limits if limit is not None), default=None)


def peak_memory() -> int:
    """Return the peak memory (bytes) of this process so far; 0 where the system does not report it."""
    if resource is None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def readable_bytes(count: int) -> str:
    """Return a size such as ``1.5 GB`` in decimal units, as disks are sold and df -H counts."""
    size, unit = float(count), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if size < 1000:
            break
        size, unit = size / 1000, larger
    return f"{count} bytes" if unit == "bytes" else f"{size:.3g} {unit}"


def readable_seconds(seconds: float) -> str:
    """Return a duration in its two largest units: ``2 h 5 min``, ``3 min 20 s`` or ``12 s``."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole % 3600 // 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def _describe_free(count: int | None) -> str:
    return "free space unknown" if count is None else f"{readable_bytes(count)} free"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _available_memory() -> int | None:
    if _MEMORY_INFO.is_file():
        for line in _MEMORY_INFO.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # no sysconf (Windows), or no such name (macOS)
        return None


def _cgroup_memory(group: Path, limit: str, usage: str, reclaimable: str) -> int | None:
    """Return the limit of one control group less its usage; reclaimable file pages count as free."""
    try:
        maximum, used = ((group / name).read_text(encoding="ascii").strip() for name in (limit, usage))
        statistics = dict(line.split() for line in (group / "memory.stat").read_text(encoding="ascii").splitlines())
        return max(0, int(maximum) - int(used) + int(statistics.get(reclaimable, 0)))
    except (OSError, ValueError):  # no such group, or its limit is "max", which is none
        return None
