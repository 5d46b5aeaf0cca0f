"""The protocol of every index: top-K by inner product, and attributes that declare what else it can do.

Queries arrive already divided by the temperature, so an inner product *is* a logit and the index knows no temperature.
Training and answering ask for a capability, never for a class; where it comes with methods, a function here narrows the
type: ``if has_movable_rows(index): index.replace(…)``.

==================  ================================================================================================
log_z               the log-normaliser over the base is exact, can be estimated with a known error
                    (`has_estimated_log_z`), or is not there at all
samples_exactly     ``sample`` draws rows exactly from softmax(logits): `can_sample`
moves_rows          ``replace`` stores other embeddings in place, and the index can be built anew: `has_movable_rows`
keeps_embeddings    ``vectors`` gives back what was embedded, but for the rounding of its storage type
is_spread           several ranks hold a part each, which ``whole`` gathers: `is_spread_over_ranks`
saves_with_model    ``save`` writes what a model's folder may hold: `can_save_with_model`
==================  ================================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, TypeGuard, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.types import UserError

__all__ = [
    "EstimableIndex",
    "FilterableIndex",
    "Index",
    "LogNormaliser",
    "MovableIndex",
    "Neighbours",
    "SampleableIndex",
    "SaveableIndex",
    "SpreadIndex",
    "can_filter",
    "can_sample",
    "can_save_with_model",
    "has_estimated_log_z",
    "has_movable_rows",
    "is_spread_over_ranks",
    "require_query",
    "require_rows",
]

LogNormaliser = Literal["exact", "estimated", "none"]
"""Ways to know log Z over the base: `Index.search` returns it, `estimate_log_normaliser` estimates it, or none."""


@dataclass(frozen=True)
class Neighbours:
    """The K best rows of each query, best first; row -1 with logit ``-inf`` where the base has fewer than K.

    ``log_normaliser`` is logsumexp of the logits of *all* rows that are not excluded, differentiable with respect to
    the query (its gradient is the softmax-mean embedding); None where the index is approximate. Where it was estimated
    afterwards, ``log_z_error`` is its standard error in nats; None where it is exact. ``logit`` is detached.
    """

    row: Int[Tensor, "B K"]
    logit: Float[Tensor, "B K"]
    log_normaliser: Float[Tensor, " B"] | None
    log_z_error: Float[Tensor, " B"] | None = None


@runtime_checkable
class Index(Protocol):
    """Embeddings of the N passages of one knowledge base, addressed by row number."""

    @property
    def base_fingerprint(self) -> str:
        """Return the fingerprint of the knowledge base whose rows these are."""
        ...

    @property
    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder that embedded the rows."""
        ...

    @property
    def log_z(self) -> LogNormaliser:
        """Return how log Z over the base is known: only where it is "exact" does ``search`` return it."""
        ...

    @property
    def samples_exactly(self) -> bool:
        """Return whether the index is a `SampleableIndex`."""
        ...

    @property
    def moves_rows(self) -> bool:
        """Return whether the index is a `MovableIndex`."""
        ...

    @property
    def keeps_embeddings(self) -> bool:
        """Return whether ``vectors`` returns the embeddings that were stored, not approximations of them."""
        ...

    @property
    def is_spread(self) -> bool:
        """Return whether the index is a `SpreadIndex`."""
        ...

    @property
    def saves_with_model(self) -> bool:
        """Return whether the index is a `SaveableIndex`."""
        ...

    @property
    def held_rows(self) -> Sequence[int]:
        """Return the rows that can be retrieved, ascending, by their numbers in the base."""
        ...

    def __len__(self) -> int: ...

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return the k best rows per query, never one of ``exclude`` (row numbers, -1 is padding)."""
        ...

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the stored embeddings of the given rows, fp32; row -1 gives zeros."""
        ...


@runtime_checkable
class SampleableIndex(Index, Protocol):
    """An index with ``samples_exactly``."""

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        """Draw ``draws`` rows of each query, with replacement, exactly from softmax(logits) over what is not
        excluded.
        """
        ...


@runtime_checkable
class EstimableIndex(Index, Protocol):
    """An index whose ``log_z`` is "estimated": it holds every row of its base, and gives their vectors back.

    `retrograd.index.estimated.estimate_log_normaliser` estimates log Z from them.
    """

    @property
    def recall(self) -> float:
        """Return the measured share of the best rows that ``search`` finds, from 0 to 1."""
        ...


@runtime_checkable
class FilterableIndex(Index, Protocol):
    """An approximate index that can be filtered; `retrograd.index.restricted.restrict` knows this and the exact one."""

    def search_among(
        self, rows: Int[Tensor, " n"], query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None
    ) -> Neighbours:
        """Return what ``search`` returns, among ``rows`` (distinct, ascending) alone."""
        ...


@runtime_checkable
class MovableIndex(Index, Protocol):
    """An index with ``moves_rows``: it can follow a passage encoder that learns."""

    @property
    def dtype(self) -> torch.dtype:
        """Return the storage type."""
        ...

    def replace(self, row: Int[Tensor, " Z"], vectors: Float[Tensor, "Z D"], encoder_fingerprint: str) -> None:
        """Store other embeddings for some distinct rows, in place; the index is then marked ``encoder_fingerprint``."""
        ...


@runtime_checkable
class SpreadIndex(Index, Protocol):
    """An index that ``is_spread`` over the ranks of a process group."""

    def whole(self) -> Index | None:
        """Return all rows in the main memory of the first rank, None on the others; every rank must call it."""
        ...


@runtime_checkable
class SaveableIndex(Index, Protocol):
    """An index that ``saves_with_model``."""

    def save(self, path: Path) -> None:
        """Write the folder ``path``, atomically."""
        ...


def can_sample(index: Index) -> TypeGuard[SampleableIndex]:
    """Return whether rows can be drawn from the exact softmax."""
    return index.samples_exactly


def has_estimated_log_z(index: Index) -> TypeGuard[EstimableIndex]:
    """Return whether log Z over the base can be estimated, and not be had exactly."""
    return index.log_z == "estimated"


def has_movable_rows(index: Index) -> TypeGuard[MovableIndex]:
    """Return whether rows can be replaced and the index built anew."""
    return index.moves_rows


def can_filter(index: Index) -> TypeGuard[FilterableIndex]:
    """Return whether an approximate index finds the best of some rows."""
    return isinstance(index, FilterableIndex)


def is_spread_over_ranks(index: Index) -> TypeGuard[SpreadIndex]:
    """Return whether the rows are divided between several ranks."""
    return index.is_spread


def can_save_with_model(index: Index) -> TypeGuard[SaveableIndex]:
    """Return whether a model's folder may hold the index as it is."""
    return index.saves_with_model


def require_query(query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None, rows: int, dimension: int) -> None:
    """Raise `UserError` for a query of another width than the index or one that is not finite.

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
    """Raise `ValueError` unless every row is -1 (padding) or one of 0 … rows - 1."""
    if row.numel() and (int(row.min()) < -1 or int(row.max()) >= rows):
        raise ValueError(f"rows span {int(row.min())} … {int(row.max())}; expected -1 (padding) … {rows - 1}")
