"""What every index offers: top-K by inner product, and where it can, the log-normaliser over the whole base.

Queries arrive already divided by the temperature, so an inner product *is* a logit and the index knows no temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["Index", "Neighbours"]


@dataclass(frozen=True)
class Neighbours:
    """The K best rows of each query, best first; row -1 with logit ``-inf`` where the base has fewer than K.

    ``log_normaliser`` is logsumexp of the logits of *all* rows that are not excluded, differentiable with respect to the
    query (its gradient is the softmax-mean embedding); None where the index is approximate. ``logit`` is detached.
    """

    row: Int[Tensor, "B K"]
    logit: Float[Tensor, "B K"]
    log_normaliser: Float[Tensor, " B"] | None


class Index(Protocol):
    """Embeddings of the N passages of one knowledge base, addressed by row number."""

    base_fingerprint: str
    encoder_fingerprint: str

    def __len__(self) -> int: ...

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """The k best rows per query, never one of ``exclude`` (row numbers, -1 is padding)."""
        ...

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Stored embeddings of the given rows, fp32; row -1 gives zeros."""
        ...
