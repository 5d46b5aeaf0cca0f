"""When the index is embedded anew."""

from __future__ import annotations

from dataclasses import dataclass

from retrograd.types import UserError

__all__ = ["RefreshEvery"]


@dataclass(frozen=True)
class RefreshEvery:
    """Refresh after every ``steps`` optimiser steps; 0 is never. A stage begins with a fresh index in any case."""

    steps: int

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise UserError(f"refresh_every is {self.steps}; expected 0 (never) or a number of optimiser steps")

    def due(self, step: int) -> bool:
        """Whether to refresh before step ``step`` (from 0). To be asked only where training moves passages."""
        return step > 0 and self.steps > 0 and step % self.steps == 0
