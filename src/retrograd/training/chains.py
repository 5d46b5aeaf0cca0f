"""Where each example's Markov chain stood at its last visit, as a row of the knowledge base."""

from __future__ import annotations

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.rag.candidates import Candidates

__all__ = ["Chains"]


class Chains:
    """One row per training example (maybe the null passage's), -1 for a chain that has not started."""

    def __init__(self, examples: int) -> None:
        self._row = torch.full((examples,), -1, dtype=torch.long)

    def rows(self, positions: Int[Tensor, " b"]) -> Int[Tensor, " b"] | None:
        """The rows to take up again, or None while no chain has started (then nothing is added to the candidates)."""
        rows = self._row[positions]
        return rows if bool((rows != -1).any()) else None

    def remember(self, positions: Int[Tensor, " b"], candidates: Candidates, last: Int[Tensor, " b"] | None) -> None:
        """Store where the chains stopped; ``last`` is a column among the candidates, None where there are no chains."""
        if last is None:
            return
        rows = candidates.rows.gather(1, last.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        self._row[positions] = torch.where(last >= 0, rows, -1).cpu()
