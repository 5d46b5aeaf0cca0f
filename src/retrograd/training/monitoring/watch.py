"""Report on a stage while it trains: health, alarms, and scores on development data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.monitoring.alarms import Alarms
from retrograd.training.monitoring.health import Visit, format_health, measure_health
from retrograd.training.optimiser import norms_by_part, trained_weights
from retrograd.training.refresh.live_index import LiveIndex
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.stage import Stage
from retrograd.util.progress import say

__all__ = ["Score", "Watch", "is_due"]

Score = Callable[[RagModel], dict[str, float]]
"""Scores on development data; it leaves the model in training mode."""


@dataclass(frozen=True)
class Watch:
    """The reports of a stage of ``steps`` steps. ``index`` is reported where the stage makes it stale."""

    model: RagModel
    stage: Stage
    steps: int
    run: RunDirectory
    alarms: Alarms
    saves: Checkpoints
    index: LiveIndex | None
    score: Score | None

    def gradient_norms(self, step: int) -> dict[str, float]:
        """Return the norms of the gradients of ``step`` by part of the model, before they are clipped; none where
        nothing is logged."""
        return norms_by_part(self.model) if self._logs(step) else {}

    def report(self, step: int, visit: Visit, norm: float, norms: dict[str, float]) -> None:
        """Log what is due after ``step``: the health of its last micro-batch, then scores on development data.

        ``norm`` is that of all gradients together, ``norms`` those by part.
        """
        if self._logs(step):
            self._report_health(step, visit, norm, norms)
        if self.score is not None and is_due(step, self.stage.evaluate_every):
            name = self.stage.name
            self.run.log(step + 1, name, self.saves.add_best(self.score(self.model), name, step + 1))

    def _logs(self, step: int) -> bool:
        return is_due(step, self.stage.log_every, self.steps)

    def _report_health(self, step: int, visit: Visit, norm: float, norms: dict[str, float]) -> None:
        ranks, steps, name = Ranks(), step + 1, self.stage.name
        ranks.require_equal(trained_weights(self.model))
        values = ranks.means(measure_health(self.model, visit, norm), visit.weight)
        values |= norms | ({} if self.index is None else self.index.diagnostics(steps))
        self.run.log(steps, name, values)
        say(format_health(name, steps, self.steps, values))
        self.alarms.check(steps, values, visit)


def is_due(step: int, every: int, steps: int | None = None) -> bool:
    """Return whether ``step`` (from 0) is an ``every``-th one (0: never), or the last one where ``steps`` is given."""
    return every > 0 and ((step + 1) % every == 0 or step + 1 == steps)
