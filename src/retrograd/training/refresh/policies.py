"""Policies of refreshing: when passages are embedded anew while training moves them, and which.

A policy is applied before every step but a stage's first, when the index is fresh, and only where training moves
passage embeddings. At the end of such a stage the whole base is embedded anew, whatever the policy. What each costs is
counted in passages encoded without gradient, N being all of them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from retrograd.deferred import torch
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.training.refresh.live_index import LiveIndex

__all__ = [
    "EverySteps",
    "InBackground",
    "Never",
    "RefreshPolicy",
    "RetrievedLately",
    "Rolling",
    "WhenDrifted",
    "require_one_process",
]


@runtime_checkable
class RefreshPolicy(Protocol):
    """A rule that keeps the index of a model in training from growing stale."""

    @property
    def is_active(self) -> bool:
        """Return whether the policy ever does anything."""
        return True

    @property
    def needs_worker(self) -> bool:
        """Return whether another process embeds, beside the only one that trains."""
        return False

    def embeddings(self, steps: int) -> float | None:
        """Return how often a stage of so many steps embeds the whole base meanwhile; None where only the run tells."""
        return None

    def apply(self, index: LiveIndex, step: int) -> None:
        """Do what is due before step ``step``, after as many optimiser steps."""
        ...


@dataclass(frozen=True)
class Never(RefreshPolicy):
    """Keep the index of the stage's beginning to its end."""

    @property
    def is_active(self) -> bool:
        return False

    def embeddings(self, steps: int) -> float:
        return 0.0

    def apply(self, index: LiveIndex, step: int) -> None:
        pass


@dataclass(frozen=True)
class EverySteps(RefreshPolicy):
    """Embed all rows after every ``steps`` optimiser steps; 0 is never. Cost: N per ``steps`` steps; training waits."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"refresh_every is {self.steps}; expected 0 (never) or a number of optimiser steps")

    @property
    def is_active(self) -> bool:
        return self.steps > 0

    def embeddings(self, steps: int) -> float:
        return float(max(0, steps - 1) // self.steps) if self.is_active else 0.0

    def apply(self, index: LiveIndex, step: int) -> None:
        if _is_due(step, self.steps):
            index.renew(step)


@dataclass(frozen=True)
class WhenDrifted(RefreshPolicy):
    """Embed all rows when the probe's mean 1 - cosine, taken every ``check_every`` steps, exceeds ``threshold``.

    Cost: the probe's passages per check, and N per refresh. At a drift of 0.04 a stale IVF index of 200,000 vectors had
    recall@10 0.85; useful thresholds lie below that.
    """

    threshold: float
    check_every: int

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2:
            raise UserError(f"refresh_drift is {self.threshold}; expected a mean 1 - cosine, such as 0.02")
        _require_steps(self.check_every)

    def apply(self, index: LiveIndex, step: int) -> None:
        if _is_due(step, self.check_every) and index.drift() > self.threshold:
            index.renew(step)


@dataclass(frozen=True)
class Rolling(RefreshPolicy):
    """Embed the next ``share`` of the rows before each step, in the order of the base, again and again.

    Cost: share·N a step, evenly spread; no row is older than 1/share steps.
    """

    share: float

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise UserError(f"refresh_share is {self.share}; expected a share of the rows in (0, 1], such as 0.02")

    def embeddings(self, steps: int) -> float:
        return float(max(0, steps - 1) * self.share)

    def apply(self, index: LiveIndex, step: int) -> None:
        if step > 0:
            count = math.ceil(self.share * len(index))
            index.renew_rows((torch.arange(count) + (step - 1) * count) % len(index), step)


@dataclass(frozen=True)
class RetrievedLately(RefreshPolicy):
    """Embed, every ``every`` steps, the rows that were some query's candidate in the last ``window`` steps.

    Cost: at most B·K·window, however large the base. The rows that matter are fresh; a passage that training has moved
    towards a query is found only if its old embedding comes up, too: `Rolling` reaches those that nobody reads.
    """

    every: int
    window: int

    def __post_init__(self) -> None:
        _require_steps(self.every)
        if self.window < 1:
            raise UserError(f"refresh_window is {self.window}; expected a number of optimiser steps, such as 50")

    def apply(self, index: LiveIndex, step: int) -> None:
        if _is_due(step, self.every):
            index.renew_rows(index.rows_read_since(step - self.window), step)


@dataclass(frozen=True)
class InBackground(RefreshPolicy):
    """Have another process embed all rows with a snapshot of the tower, and take its index over before the next step.

    Snapshots lie ``every`` steps apart, more where embedding takes longer. Cost: N a snapshot in the other process,
    which shares this machine's processors or GPU, so that steps take longer meanwhile. Training itself waits while the
    passages' texts are written, once, while the tower is written and hashed, and on a GPU while a finished index is
    copied there; `IndexWorker` says how long. Just taken over, the index is as old as the embedding took: ``index_age``
    in the log says it.

    Not reproducible: the step at which an index is taken over depends on the clock. Take another policy where a seed
    must repeat a run.
    """

    every: int

    def __post_init__(self) -> None:
        _require_steps(self.every)

    @property
    def needs_worker(self) -> bool:
        return True

    def apply(self, index: LiveIndex, step: int) -> None:
        if step > 0:
            index.renew_elsewhere(step, self.every)


def _is_due(step: int, every: int) -> bool:
    return step > 0 and every > 0 and step % every == 0


def _require_steps(every: int) -> None:
    if every < 1:
        raise UserError(f"refresh_every is {every}; this policy expects a number of optimiser steps, such as 20")


def require_one_process(policy: RefreshPolicy) -> None:
    """Raise `UserError` for a policy that several ranks cannot follow together."""
    if policy.needs_worker:
        raise UserError(
            'training.refresh = "background" is for one process; set training.refresh = "every" to train with several'
        )
