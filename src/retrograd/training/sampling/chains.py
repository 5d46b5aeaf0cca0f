"""Remember where each Markov chain was at its last visit, as a row of the knowledge base.

A chain belongs to an example *and* the target it is trained on: another target has another posterior over passages, and
a state taken over from there would be a cold start counted as a warm one.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.rag.candidates import NULL_ROW, Candidates
from retrograd.types import UserError

__all__ = ["Chains"]


class Chains:
    """The row of each (example, target)'s chain, maybe the null passage's; -1 for a chain that has not started.

    ``targets`` says how many each example has. Memory: 8 bytes for each pair, and 16 for each example.
    """

    def __init__(self, targets: Int[Tensor, " n"]) -> None:
        self._targets = targets
        self._first = targets.cumsum(0) - targets
        self._row = torch.full((int(targets.sum()),), -1, dtype=torch.long)

    @property
    def has_started(self) -> bool:
        """Return whether any chain has started."""
        return bool((self._row != -1).any())

    def rows(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> Int[Tensor, " b"] | None:
        """Return the rows to go on from, or None while none of these chains has started: no candidate is then added."""
        rows = self.at(positions, target)
        return rows if bool((rows != -1).any()) else None

    def at(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"]) -> Int[Tensor, " b"]:
        """Return the rows where the chains are, -1 for those that have not started."""
        return self._row[self._first[positions] + target]

    def put(self, positions: Int[Tensor, " b"], target: Int[Tensor, " b"], rows: Int[Tensor, " b"]) -> None:
        """Set the rows where the chains are, which `at` returned before or another rank knows."""
        self._row[self._first[positions] + target] = rows

    def remember(
        self,
        positions: Int[Tensor, " b"],
        target: Int[Tensor, " b"],
        candidates: Candidates,
        last: Int[Tensor, " b"] | None,
    ) -> None:
        """Store where the chains stopped; ``last`` is a column among the candidates, None where there are no chains.

        A query whose candidates were the prior's alone leaves its chain where it stood.
        """
        if last is None:
            return
        pair = self._first[positions] + target
        rows = candidates.rows.gather(1, last.clamp(min=0).unsqueeze(-1)).squeeze(-1)
        rows = torch.where(last >= 0, rows, -1).cpu()
        if candidates.prior_only is not None:
            rows = torch.where(candidates.prior_only.cpu().squeeze(-1), self._row[pair], rows)
        self._row[pair] = rows

    def state(self) -> dict[str, Tensor]:
        """Return ``row``, one per pair in the order of the examples, and ``targets``, the number of pairs of each."""
        return {"row": self._row.clone(), "targets": self._targets.clone()}

    def load(self, state: Mapping[str, Tensor], passages: int) -> None:
        """Restore what `state` returned, over a base of ``passages``.

        Raises `UserError` for the chains of other examples or targets, and for rows that the base does not have.
        """
        if not torch.equal(state["targets"], self._targets):
            raise UserError(
                f"the saved chains are those of {len(state['targets'])} examples with {int(state['targets'].sum())} "
                f"targets, but this run has {len(self._targets)} with {len(self._row)}; go on with the data, and with "
                f"the setting training.targets, that they were saved with"
            )
        row = state["row"]
        if row.shape != self._row.shape or bool(((row < NULL_ROW) | (row >= passages)).any()):
            raise UserError(
                f"the saved chains are at rows that a base of {passages} passages does not have; go on with the "
                f"knowledge base that they were saved with"
            )
        self._row = row.clone()
