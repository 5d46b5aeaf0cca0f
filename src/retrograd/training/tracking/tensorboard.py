"""Lines for TensorBoard: a folder of events for each stage, so that a stage's steps count from 1 in each.

A stage that goes on from a checkpoint says from which step its new events count, and TensorBoard forgets what it had
read of that step and later ones. Only this file imports tensorboard.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from retrograd.training.tracking.tracker import LogLine, TrackedRun, TrackerKind

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

__all__ = ["TENSORBOARD"]


class _TensorBoard:
    """Events in ``FOLDER/NAME-ID``: settings and scores there, the lines of each stage in a folder named after it."""

    def __init__(self, run: TrackedRun) -> None:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        self._folder = run.folder / f"{run.name}-{run.id}"
        self._kept = run.kept or {}
        self._writers: dict[str, SummaryWriter] = {}
        self._run = SummaryWriter(str(self._folder))
        _, begin, self._end = hparams(dict(run.settings), {})
        if run.kept is None:
            self._write_summary(begin)

    def _write_summary(self, summary: object) -> None:
        assert self._run.file_writer is not None
        self._run.file_writer.add_summary(summary)
        self._run.flush()

    def log(self, line: LogLine) -> None:
        """Write the values of a line as scalars."""
        writer = self._writer(line.stage)
        for name, value in line.values.items():
            writer.add_scalar(name, value, line.step)
        writer.flush()  # or a run that is killed would lose two minutes of them

    def _writer(self, stage: str) -> SummaryWriter:
        from torch.utils.tensorboard import SummaryWriter

        if stage not in self._writers:
            folder = self._folder / stage.replace(" ", "-")
            first_step = self._kept.get(stage, 0) + 1 if folder.exists() else None
            self._writers[stage] = SummaryWriter(str(folder), purge_step=first_step)
        return self._writers[stage]

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Write the scores as scalars of step 0 and end; a run that was stopped stays open."""
        if scores is not None:
            for name, value in scores.items():
                self._run.add_scalar(f"scores/{name}", value, 0)
            self._write_summary(self._end)
        for writer in (self._run, *self._writers.values()):
            writer.close()


TENSORBOARD = TrackerKind("tensorboard", "tensorboard", _TensorBoard, takes_address=False)
