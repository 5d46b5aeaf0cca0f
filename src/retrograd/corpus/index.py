"""What every index offers: top-K by inner product, and where it can, the log-normaliser over the whole base.

Queries arrive already divided by the temperature, so an inner product *is* a logit and the index knows no temperature.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int
from torch import Tensor

from retrograd.types import UserError

__all__ = ["Index", "Neighbours", "require_query", "require_rows"]


@dataclass(frozen=True)
class Neighbours:
    """The K best rows of each query, best first; row -1 with logit ``-inf`` where the base has fewer than K.

    ``log_normaliser`` is logsumexp of the logits of *all* rows that are not excluded, differentiable with respect to
    the query (its gradient is the softmax-mean embedding); None where the index is approximate. ``logit`` is detached.
    """

    row: Int[Tensor, "B K"]
    logit: Float[Tensor, "B K"]
    log_normaliser: Float[Tensor, " B"] | None


@runtime_checkable
class Index(Protocol):
    """Embeddings of the N passages of one knowledge base, addressed by row number."""

    @property
    def base_fingerprint(self) -> str:
        """Of the knowledge base whose rows these are."""
        ...

    @property
    def encoder_fingerprint(self) -> str:
        """Of what embedded them."""
        ...

    def __len__(self) -> int: ...

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """The k best rows per query, never one of ``exclude`` (row numbers, -1 is padding)."""
        ...

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Stored embeddings of the given rows, fp32; row -1 gives zeros."""
        ...


def require_query(query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None, rows: int, dimension: int) -> None:
    """Raises `UserError` for a query of another width than the index or one that is not finite.

    Raises `ValueError` if ``exclude`` does not fit.
    """
    if query.shape[1] != dimension:
        raise UserError(
            f"the query has width {query.shape[1]}, the index {dimension}; "
            "search with the encoder that built the index, or rebuild it"
        )
    finite = query.detach().isfinite().all(dim=1)
    if not bool(finite.all()):
        raise UserError(
            f"query {int((~finite).nonzero()[0])} (counted from 0) is not finite; check the encoder on its text, "
            "or the learning rate if this came in training"
        )
    if exclude is None:
        return
    if len(exclude) != len(query):
        raise ValueError(f"exclude has {len(exclude)} lines for {len(query)} queries; give each query its own")
    require_rows(exclude, rows)


def require_rows(row: Int[Tensor, "*shape"], rows: int) -> None:
    """Raises `ValueError` unless every row is -1 (padding) or one of 0 … rows - 1."""
    if row.numel() and (int(row.min()) < -1 or int(row.max()) >= rows):
        raise ValueError(f"rows span {int(row.min())} … {int(row.max())}; expected -1 (padding) … {rows - 1}")
