"""Report on a stage while it trains: health, alarms, and scores on development data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.micro_batches import BatchVisit
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.monitoring.alarms import Alarms
from retrograd.training.monitoring.health import Visit, measure_health
from retrograd.training.optimiser import norms_by_part, trained_weights
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.sampling.targets import Targets
from retrograd.training.stage import Stage
from retrograd.training.tracking.run_log import RunLog
from retrograd.training.tracking.tracker import LogLine
from retrograd.types import Example

__all__ = ["Score", "Watch", "is_due"]

Score = Callable[[RagModel], dict[str, float]]
"""Scores on development data; it leaves the model in training mode."""


@dataclass(frozen=True)
class Watch:
    """The reports of a stage of ``steps`` steps. ``index`` is reported where the stage makes it stale."""

    model: RagModel
    stage: Stage
    steps: int
    run_log: RunLog
    alarms: Alarms
    saves: Checkpoints
    index: LiveIndex | None
    score: Score | None

    def gradient_norms(self, step: int) -> dict[str, float]:
        """Return the norms of the gradients of ``step`` by part of the model, before they are clipped; none where
        nothing is logged."""
        return norms_by_part(self.model) if self._logs(step) else {}

    def report(self, step: int, visit: BatchVisit, norm: float, norms: dict[str, float]) -> None:
        """Count ``step``, and log what is due after it: the health of its last micro-batch, then scores on development
        data.

        ``norm`` is that of all gradients together, ``norms`` those by part.
        """
        self.saves.counts.add(visit.queries, visit.tokens)
        if self._logs(step):
            self._report_health(step, visit.last, norm, norms)
        if self.score is not None and is_due(step, self.stage.evaluate_every):
            self.log(step + 1, self.saves.add_best(self.score(self.model), self.stage.name, step + 1))
            self.saves.counts.mark()

    def log(self, step: int, values: Mapping[str, int | float]) -> None:
        """Log the values of ``step`` (from 1) with the time and the counts of the run; nothing without values."""
        if values:
            line = LogLine(self.stage.name, step, self.steps, {**values, **self.saves.counts.values()})
            self.run_log.log(line)

    def save_targets(self, run: RunDirectory, examples: Sequence[Example], targets: Targets) -> None:
        """Log how many visits took each target at the stage's end, and write the counts of each example."""
        self.log(self.steps, targets.visits())
        run.save_targets(self.stage.name, examples, targets)

    def _logs(self, step: int) -> bool:
        return is_due(step, self.stage.log_every, self.steps)

    def _report_health(self, step: int, visit: Visit, norm: float, norms: dict[str, float]) -> None:
        ranks, steps = Ranks(), step + 1
        ranks.require_equal(trained_weights(self.model))
        values = ranks.means(measure_health(self.model, visit, norm), visit.weight)
        values |= norms | ({} if self.index is None else self.index.diagnostics(steps))
        self.log(steps, values | self.saves.counts.rate())
        self.saves.counts.mark()
        self.alarms.check(steps, values, visit)


def is_due(step: int, every: int, steps: int | None = None) -> bool:
    """Return whether ``step`` (from 0) is an ``every``-th one (0: never), or the last one where ``steps`` is given."""
    return every > 0 and ((step + 1) % every == 0 or step + 1 == steps)
