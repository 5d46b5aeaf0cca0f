"""Choose which of its acceptable answers each visit of an example trains on.

A question of TriviaQA, say, has many answers. Training takes the first, or another at each visit: a position among
them, which is what is counted here and what the chains are kept by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.data.examples import TargetChoice, with_target
from retrograd.types import Example

__all__ = ["Targets"]


class Targets:
    """The choice among each example's targets: the first, or one drawn per visit, all equally likely.

    ``choices`` [n] is how many positions an example may be visited with. The visits of each are counted, 8 bytes a pair
    of example and target. Raises `UserError` for an example without a target, where one is to be drawn.
    """

    def __init__(self, examples: Sequence[Example], choice: TargetChoice) -> None:
        self._sampled = choice == "sampled"
        self.choices = torch.ones(len(examples), dtype=torch.long)
        if self._sampled:
            for position, example in enumerate(examples):
                _ = example.target
                self.choices[position] = len(example.targets)
        self._first = self.choices.cumsum(0) - self.choices
        self._visits = torch.zeros(int(self.choices.sum()), dtype=torch.long)

    def draw(self, positions: Int[Tensor, " b"], rng: torch.Generator) -> Int[Tensor, " b"]:
        """Draw the position of the target of each example of a batch, and count the visits.

        ``rng`` is used where targets are sampled only: one number per example of the batch.
        """
        if not self._sampled:
            return torch.zeros_like(positions)
        uniform = torch.rand(len(positions), generator=rng, dtype=torch.float64)
        position = (uniform * self.choices[positions]).long()
        self._visits.index_add_(0, self._first[positions] + position, torch.ones_like(position))
        return position

    @staticmethod
    def first(examples: Sequence[Example], position: Int[Tensor, " b"]) -> list[Example]:
        """Return the examples with the drawn target first, the one that all code below the loop trains on."""
        pairs = zip(examples, position.tolist(), strict=True)
        return [with_target(example, position) if position else example for example, position in pairs]

    def state(self) -> dict[str, Tensor]:
        """Return how often each pair of example and target was drawn, in the order of the examples."""
        return {"visits": self._visits.clone()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned, for the same examples."""
        self._visits = state["visits"].clone()

    def visits(self) -> dict[str, float]:
        """Return how many visits trained on each position, for the log; empty where the first is always taken."""
        if not self._sampled:
            return {}
        position = torch.arange(len(self._visits)) - self._first.repeat_interleave(self.choices)
        counts = position.bincount(self._visits.double())
        return {f"visits_of_target_{position}": count for position, count in enumerate(counts.tolist())}

    def visits_of_each(self) -> list[list[int]]:
        """Return how often each example trained on each of its targets; empty where the first is always taken."""
        return [part.tolist() for part in self._visits.split(self.choices.tolist())] if self._sampled else []
