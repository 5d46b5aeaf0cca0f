"""Counts and durations of the service, in the text format of Prometheus."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Metrics"]

_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds of the buckets of durations, in seconds."""


class Metrics:
    """Numbers of one service since it was started. All methods may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, _Histogram] = {}
        self._counts: Counter[str] = Counter()
        self._model_seconds = 0.0

    def add_request(self, endpoint: str, status: int, seconds: float) -> None:
        """Count a request that was answered."""
        with self._lock:
            self._requests[endpoint, status] += 1
            self._seconds.setdefault(endpoint, _Histogram()).add(seconds)

    def add_batch(self, size: int, seconds: float) -> None:
        """Count a batch that the model has done."""
        with self._lock:
            self._counts["batches"] += 1
            self._counts["batched_requests"] += size
            self._model_seconds += seconds

    def add(self, name: str) -> None:
        """Count something else, by a name of `_COUNTS`."""
        with self._lock:
            self._counts[name] += 1

    def text(self, waiting: int, index_switches: int) -> str:
        """Return all numbers; ``waiting`` is how many requests wait for the model now, ``index_switches`` how many new
        versions of an index were taken up.
        """
        with self._lock:
            return "\n".join(self._lines(waiting, index_switches)) + "\n"

    def _lines(self, waiting: int, index_switches: int) -> Iterator[str]:
        yield from _head("requests_total", "counter", "Requests that were answered.")
        for (endpoint, status), count in sorted(self._requests.items()):
            yield f'retrograd_requests_total{{endpoint="{endpoint}",status="{status}"}} {count}'
        yield from _head("request_seconds", "histogram", "Seconds from a request to its answer.")
        for endpoint, histogram in sorted(self._seconds.items()):
            yield from histogram.lines(endpoint)
        yield from _head("waiting_requests", "gauge", "Requests that wait for the model.")
        yield f"retrograd_waiting_requests {waiting}"
        yield from _head("model_seconds_total", "counter", "Seconds that the model has worked.")
        yield f"retrograd_model_seconds_total {self._model_seconds!r}"
        self._counts["index_switches"] = index_switches
        for name, text in _COUNTS.items():
            yield from _head(f"{name}_total", "counter", text)
            yield f"retrograd_{name}_total {self._counts[name]}"
        yield from _head("resident_memory_bytes", "gauge", "Main memory of the process.")
        yield f"retrograd_resident_memory_bytes {_resident_bytes()}"


_COUNTS = {
    "batches": "Batches that the model has done.",
    "batched_requests": "Requests in these batches.",
    "feedback": "Verdicts that were kept.",
    "index_switches": "Versions of an index that were taken up while serving.",
    "streamed_pieces": "Pieces of answers that were sent as they were decoded.",
}


class _Histogram:
    """Durations of one endpoint."""

    def __init__(self) -> None:
        self._buckets = [0] * len(_BOUNDS)
        self._count = 0
        self._sum = 0.0

    def add(self, seconds: float) -> None:
        for place, bound in enumerate(_BOUNDS):
            self._buckets[place] += seconds <= bound
        self._count += 1
        self._sum += seconds

    def lines(self, endpoint: str) -> Iterator[str]:
        for bound, count in zip(_BOUNDS, self._buckets, strict=True):
            yield f'retrograd_request_seconds_bucket{{endpoint="{endpoint}",le="{bound}"}} {count}'
        yield f'retrograd_request_seconds_bucket{{endpoint="{endpoint}",le="+Inf"}} {self._count}'
        yield f'retrograd_request_seconds_sum{{endpoint="{endpoint}"}} {self._sum!r}'
        yield f'retrograd_request_seconds_count{{endpoint="{endpoint}"}} {self._count}'


def _head(name: str, kind: str, text: str) -> Iterator[str]:
    yield f"# HELP retrograd_{name} {text}"
    yield f"# TYPE retrograd_{name} {kind}"


def _resident_bytes() -> int:
    """Return the main memory of the process; 0 where the system does not say."""
    try:
        fields = Path("/proc/self/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")
