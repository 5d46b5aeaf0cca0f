"""The order in which examples are visited: every epoch a new permutation, every example once."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Int
from torch import Tensor

__all__ = ["batches", "steps_in"]


def batches(examples: int, batch_size: int, epochs: int, rng: torch.Generator) -> Iterator[Int[Tensor, " b"]]:
    """Positions of the examples of each batch; the last batch of an epoch may be smaller."""
    for _ in range(epochs):
        yield from torch.randperm(examples, generator=rng).split(batch_size)


def steps_in(examples: int, batch_size: int, epochs: int) -> int:
    """How many batches `batches` yields."""
    return epochs * -(-examples // batch_size)
