"""The protocol of trackers: what is logged while a run trains goes to each of them, line by line.

``metrics.jsonl`` and the progress line are trackers like any other (`retrograd.training.tracking.run_log`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

__all__ = ["Hyperparameter", "LogLine", "TrackedRun", "Tracker", "TrackerKind"]

Hyperparameter = str | int | float | bool


@dataclass(frozen=True)
class LogLine:
    """The values of one logged ``step`` of a stage, which counts its ``steps`` from 1."""

    stage: str
    step: int
    steps: int
    values: Mapping[str, int | float]


@runtime_checkable
class Tracker(Protocol):
    """A place where the lines and the scores of one run go. It may raise: it is then left out, and training goes on."""

    def log(self, line: LogLine) -> None:
        """Take one line."""
        ...

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Take the scores on the test data and end; None where the run was stopped and may be resumed."""
        ...


@dataclass(frozen=True)
class TrackedRun:
    """Describe a run to the tracker that is to log it.

    It keeps its files in ``folder``, or sends its lines to ``address`` unless that is "". The run is called ``name`` in
    a ``project``. A run that was stopped and goes on has the ``id`` that it had; ``kept`` are then the last steps by
    stage whose lines hold, and None for a new run. ``settings`` are those of the experiment, by their dotted names.
    """

    folder: Path
    address: str
    project: str
    name: str
    id: str
    settings: Mapping[str, Hyperparameter]
    kept: Mapping[str, int] | None = None


@dataclass(frozen=True)
class TrackerKind:
    """A tracker that experiments may name: ``open`` needs the Python package ``package`` of the extra ``name``.

    ``takes_address`` says whether it can send its lines to an address.
    """

    name: str
    package: str
    open: Callable[[TrackedRun], Tracker]
    takes_address: bool
