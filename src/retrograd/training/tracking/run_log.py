"""The log of a run: each line goes to ``metrics.jsonl``, to the progress line, and to the trackers that were asked for.

A tracker that fails must not end a training: it is left out from then on, with one warning. ``metrics.jsonl`` is no
such tracker: a run goes on from it, so a line that cannot be written there ends the run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from retrograd.training.monitoring.health import format_health
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.tracker import LogLine, Tracker
from retrograd.util.progress import say

__all__ = ["MetricsFile", "ProgressLine", "RunLog", "warn_of_failure"]


class MetricsFile:
    """The tracker that appends each line to a run's ``metrics.jsonl``."""

    def __init__(self, run: RunDirectory) -> None:
        self._run = run

    def log(self, line: LogLine) -> None:
        """Append a line. Raises `UserError` where it cannot be written."""
        self._run.log(line.step, line.stage, line.values)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Do nothing: the scores have a file of their own."""


class ProgressLine:
    """The tracker that shows people the health of a step; lines without a loss have none."""

    def log(self, line: LogLine) -> None:
        """Show a line."""
        if "loss" in line.values:
            say(format_health(line.stage, line.step, line.steps, line.values))

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Do nothing: who has asked for the scores shows them."""


class RunLog:
    """The log of a run. ``trackers`` are those that may fail, by name; only the first of several ranks has any.

    They get finite values alone.
    """

    def __init__(self, run: RunDirectory, trackers: Mapping[str, Tracker] | None = None) -> None:
        self._own: tuple[Tracker, ...] = (MetricsFile(run), ProgressLine())
        self._trackers = dict(trackers or {})

    def log(self, line: LogLine) -> None:
        """Give a line to all. Raises `UserError` where ``metrics.jsonl`` cannot be written."""
        for tracker in self._own:
            tracker.log(line)
        finite = replace(line, values={name: value for name, value in line.values.items() if math.isfinite(value)})
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.log(finite)
            except Exception as error:  # whatever a package for tracking raises
                self._leave_out(name, error)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Give all the scores on the test data, or None where the run was stopped, and end."""
        for name, tracker in list(self._trackers.items()):
            try:
                tracker.close(scores)
            except Exception as error:
                self._leave_out(name, error)
        self._trackers.clear()

    def _leave_out(self, name: str, error: Exception) -> None:
        del self._trackers[name]
        warn_of_failure(name, error)


def warn_of_failure(name: str, error: Exception) -> None:
    """Say that a tracker has failed and that training goes on without it."""
    reason = (str(error).splitlines() or [""])[0][:300]
    say(
        f"the tracker {name} has failed ({type(error).__name__}: {reason}); training goes on without it, and "
        f"metrics.jsonl has every line"
    )
