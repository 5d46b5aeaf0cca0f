"""Pages about training that is going on, written again as lines are logged."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from retrograd.report.run_page import save_run_page
from retrograd.report.study_page import save_study_page
from retrograd.studies.report_page import build_progress_page
from retrograd.studies.report_study import build_study_page
from retrograd.training.tracking.tracker import LogLine, Tracker

__all__ = ["LivePage", "watch_run", "watch_study"]

_LEAST_SECONDS = 5.0
_LARGEST_SHARE = 0.05


class LivePage:
    """A tracker that has a page written at logged lines.

    Pages are at least five seconds apart, and further where writing one would take more than 5 % of the time. ``clock``
    returns seconds.
    """

    def __init__(self, write: Callable[[], object], clock: Callable[[], float] = time.monotonic) -> None:
        self._write = write
        self._clock = clock
        self._next = clock()

    def log(self, line: LogLine) -> None:
        """Write the page if the last one is old enough."""
        started = self._clock()
        if started >= self._next:
            self._write()
            now = self._clock()
            self._next = now + max(_LEAST_SECONDS, (now - started) / _LARGEST_SHARE)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Write the page of a run that was stopped; that of one that has ended is the caller's to make."""
        if scores is None:
            self._write()


def watch_run(run: Path) -> dict[str, Tracker]:
    """Return the tracker that writes ``report/report.html`` in the folder of a run, by the name that messages use."""
    return {"page": LivePage(lambda: save_run_page(build_progress_page(run), run / "report"))}


def watch_study(run: Path, study: Path) -> dict[str, Tracker]:
    """Return the trackers that write the page of a study's run and that of the study."""
    return watch_run(run) | {
        "page of the study": LivePage(lambda: save_study_page(build_study_page(study)[0], study / "report"))
    }
