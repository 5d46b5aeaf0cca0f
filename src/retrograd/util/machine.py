"""Facts about this machine, its free memory and disk, and how sizes and durations are written."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

__all__ = ["container_memory", "free_disk", "free_memory", "peak_memory", "readable_bytes", "readable_seconds"]

_MEMORY_INFO = Path("/proc/meminfo")
_MEMBERSHIP, _CGROUPS = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_VERSION_2 = ("memory.max", "memory.current", "inactive_file")


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
