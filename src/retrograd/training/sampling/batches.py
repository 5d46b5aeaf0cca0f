"""Draw the order in which examples are visited: every epoch is a new permutation, with every example once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int, UInt8
from torch import Tensor

__all__ = ["BatchOrder", "count_steps"]


def count_steps(examples: int, batch_size: int, epochs: int) -> int:
    """Return how many batches there are; the last one of an epoch may be smaller."""
    return epochs * -(-examples // batch_size)


class BatchOrder:
    """The order of visits: positions of the examples of each batch, drawn by ``rng`` at the beginning of each epoch.

    The last batch of an epoch may be smaller. ``steps`` is how many batches there are in all, ``epoch_start`` the state
    of ``rng`` before the present epoch was drawn, from which it can be drawn again.
    """

    def __init__(self, examples: int, batch_size: int, epochs: int, rng: torch.Generator) -> None:
        self._examples = examples
        self._batch_size = batch_size
        self._steps_per_epoch = count_steps(examples, batch_size, 1)
        self.steps = count_steps(examples, batch_size, epochs)
        self._rng = rng
        self.epoch_start: UInt8[Tensor, " bytes"] = rng.get_state()

    def resume_epoch(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Go on in the epoch that was drawn from ``state`` of the random source."""
        self.epoch_start = state

    def from_step(self, step: int) -> Iterator[tuple[int, Int[Tensor, " b"]]]:
        """Yield each step from ``step`` on, with its batch.

        In the middle of an epoch, ``epoch_start`` must be that epoch's; ``rng`` is then left as it is.
        """
        while step < self.steps:
            batch = step % self._steps_per_epoch
            for positions in self._epoch(is_resumed=batch > 0)[batch:]:
                yield step, positions
                step += 1

    def _epoch(self, is_resumed: bool) -> tuple[Int[Tensor, " b"], ...]:
        state = self._rng.get_state()
        if is_resumed:
            self._rng.set_state(self.epoch_start)
        self.epoch_start = self._rng.get_state()
        order = torch.randperm(self._examples, generator=self._rng)
        if is_resumed:
            self._rng.set_state(state)
        return order.split(self._batch_size)
