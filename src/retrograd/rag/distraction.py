"""Retrieval for something else: a control of retrieval, and wrong neighbours for a generator to learn to doubt.

The query is replaced by a passage that has nothing to do with it, so that what is found looks like retrieval, label
frequencies and scores included, and knows nothing of the query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from retrograd.io import fingerprint
from retrograd.types import Example, UserError

__all__ = ["distractors", "stand_ins"]


def stand_ins(examples: Sequence[Example], passages: int) -> Int[Tensor, " B"]:
    """A row of the base for each query, unrelated to it and the same whenever it is asked."""
    return torch.tensor([int(fingerprint([example.query])[:12], 16) % passages for example in examples])


def distractors(
    queries: int, passages: int, share: float, rng: torch.Generator | None
) -> tuple[Bool[Tensor, "B 1"], Int[Tensor, " B"]]:
    """Which queries are replaced, a ``share`` of them on average, and a random row of the base for each."""
    if rng is None:
        raise UserError("distraction is drawn at random and needs a source of randomness; pass rng")
    replaced = torch.rand(queries, 1, generator=rng) < share
    return replaced, torch.randint(passages, (queries,), generator=rng)
