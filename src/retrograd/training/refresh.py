"""When the index is embedded anew."""

from __future__ import annotations

from dataclasses import dataclass

from retrograd.types import UserError

__all__ = ["RefreshEvery"]


@dataclass(frozen=True)
class RefreshEvery:
    """Refresh before the first step and after every ``steps`` optimiser steps; 0 means before the first step only."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"refresh_every is {self.steps}; expected 0 (never) or a number of optimiser steps")

    def due(self, step: int, passages_move: bool) -> bool:
        """Whether to refresh before step ``step`` (from 0). An index whose passages do not move never grows stale."""
        return step == 0 or (passages_move and self.steps > 0 and step % self.steps == 0)
