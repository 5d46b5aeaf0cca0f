"""A subset of the rows of an index, as a separate index: a filter by source, by title, by whatever selects rows.

Everything is over the subset alone: top-K and, of an exact index, log Z and its gradient, samples. Rows keep the
numbers they have in the whole base, so passages are looked up as ever.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.index.exact import ExactIndex
from retrograd.index.protocol import (
    FilterableIndex,
    Index,
    LogNormaliser,
    Neighbours,
    can_filter,
    require_query,
    require_rows,
)
from retrograd.types import UserError

__all__ = ["FilteredIndex", "RestrictedIndex", "restrict"]

_GATHERED_SHARE = 0.5
_BLOCK_ROWS = 16_384


def restrict(index: Index, rows: Int[Tensor, " _"]) -> Index:
    """Return an index of the given ``rows`` (distinct or not, in any order) of ``index``, whatever its engine.

    Raises `UserError` for no rows at all, and for an index that knows no filter; `ValueError` for a row that does not
    exist.
    """
    if isinstance(index, ExactIndex):
        return RestrictedIndex(index, rows)
    if can_filter(index):
        return FilteredIndex(index, rows)
    raise UserError(
        f"{type(index).__name__} cannot be filtered; search a model in one process, or leave the filter out"
    )


def _require_some(rows: Int[Tensor, " _"], total: int) -> Int[Tensor, " n"]:
    rows = rows.detach().cpu().long().unique()
    if len(rows) == 0:
        raise UserError("there are no rows to restrict the index to; loosen the filter")
    if int(rows[0]) < 0:
        raise ValueError(f"row {int(rows[0])} does not exist; rows are counted from 0")
    require_rows(rows, total)
    return rows


class _Subset:
    """Rows of a whole base (distinct, ascending), which keep their numbers there."""

    def __init__(self, rows: Int[Tensor, " n"]) -> None:
        self._rows = rows

    def __len__(self) -> int:
        """Return how many rows can be retrieved, not how many the base has."""
        return len(self._rows)

    @property
    def held_rows(self) -> list[int]:
        """The rows there are to find, ascending, by their numbers in the whole base."""
        return self._rows.tolist()


class FilteredIndex(_Subset):
    """An index of the given ``rows`` of an approximate one, which filters as it searches.

    log Z over the subset is not known: an estimate would need rows drawn from it. Raises as `restrict` does.
    """

    log_z: LogNormaliser = "none"
    samples_exactly = False
    moves_rows = False
    is_spread = False
    saves_with_model = False

    def __init__(self, index: FilterableIndex, rows: Int[Tensor, " _"]) -> None:
        super().__init__(_require_some(rows, len(index)))
        self._whole = index

    @property
    def base_fingerprint(self) -> str:
        """Return the fingerprint of the whole base."""
        return self._whole.base_fingerprint

    @property
    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder that embedded the rows."""
        return self._whole.encoder_fingerprint

    @property
    def keeps_embeddings(self) -> bool:
        """Return whether ``vectors`` returns what was stored."""
        return self._whole.keeps_embeddings

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return what the whole index would, among the subset alone."""
        return self._whole.search_among(self._rows, query, k, exclude)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the embeddings of rows of the whole base, fp32; row -1 gives zeros."""
        return self._whole.vectors(row)


class RestrictedIndex(_Subset):
    """An index of the given ``rows`` (distinct or not, in any order) of ``index``.

    Up to half of the base is copied once, in the storage type: a pass then costs what the subset costs. A larger subset
    is searched in place, its complement masked block by block: a pass costs what the whole base costs, for one byte a
    row instead of a second copy of most vectors. ``gather`` decides otherwise. A copy keeps the vectors, and the
    encoder's fingerprint, of the moment it was made.

    Raises `UserError` for no rows at all, `ValueError` for a row that does not exist.
    """

    log_z: LogNormaliser = "exact"
    samples_exactly = True
    moves_rows = False
    keeps_embeddings = True
    is_spread = False
    saves_with_model = False

    def __init__(self, index: ExactIndex, rows: Int[Tensor, " _"], *, gather: bool | None = None) -> None:
        rows = _require_some(rows, len(index))
        super().__init__(rows)
        self._whole = index
        self.base_fingerprint = index.base_fingerprint
        is_copied = len(rows) <= _GATHERED_SHARE * len(index) if gather is None else gather
        self._copy = _copy_rows(index, rows) if is_copied else None
        self._excluded_rows = None if is_copied else _exclude_others(rows, len(index)).to(index.device)

    @property
    def rows(self) -> Int[Tensor, " n"]:
        """The rows there are to find, ascending, by their numbers in the whole base."""
        return self._rows

    @property
    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder of the vectors that are searched: the base's current one, or that at
        the time of the copy.
        """
        return self._whole.encoder_fingerprint if self._copy is None else self._copy.encoder_fingerprint

    @property
    def dimension(self) -> int:
        """Return D, the width of an embedding."""
        return self._whole.dimension

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return what `ExactIndex.search` returns, over the subset. Excluded rows may lie outside it."""
        if self._copy is None:
            return self._whole.search(query, k, exclude, excluded_rows=self._excluded_rows)
        neighbours = self._copy.search(query, k, self._positions(query, exclude))
        return Neighbours(self._rows_at(neighbours.row), neighbours.logit, neighbours.log_normaliser)

    def log_normaliser(
        self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None = None
    ) -> Float[Tensor, " B"]:
        """Return log Z over the subset, as `ExactIndex.log_normaliser`."""
        if self._copy is None:
            return self._whole.log_normaliser(query, exclude, excluded_rows=self._excluded_rows)
        return self._copy.log_normaliser(query, self._positions(query, exclude))

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        """Draw as `ExactIndex.sample` does, from the softmax over the subset."""
        if self._copy is None:
            return self._whole.sample(query, draws, rng, exclude, excluded_rows=self._excluded_rows)
        return self._rows_at(self._copy.sample(query, draws, rng, self._positions(query, exclude)))

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the embeddings of rows of the subset, fp32; row -1 gives zeros.

        Raises `ValueError` for a row outside it.
        """
        require_rows(row, len(self._whole))
        position = self._position_of(row)
        outside = (position < 0) & (row >= 0)
        if bool(outside.any()):
            raise ValueError(
                f"row {int(row[outside][0])} is not one of the {len(self)} that the index is restricted to"
            )
        return self._whole.vectors(row) if self._copy is None else self._copy.vectors(position)

    def _positions(self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None) -> Int[Tensor, "B E"] | None:
        """Return the positions of excluded rows in the copy; -1 for those outside the subset, which need no
        exclusion.
        """
        require_query(query, exclude, len(self._whole), self.dimension)
        return None if exclude is None else self._position_of(exclude)

    def _position_of(self, row: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        rows = self._rows.to(row.device)
        position = torch.searchsorted(rows, row.long().contiguous()).clamp(max=len(rows) - 1)
        return torch.where(rows[position] == row, position, -1)

    def _rows_at(self, position: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Return the rows of the base at positions of the copy.

        Rows ascend with positions, so equal logits stay ordered by row.
        """
        return torch.where(position >= 0, self._rows.to(position.device)[position.clamp(min=0)], -1)


def _copy_rows(index: ExactIndex, rows: Int[Tensor, " _"]) -> ExactIndex:
    return ExactIndex.from_blocks(
        (index.vectors(part.to(index.device)) for part in rows.split(_BLOCK_ROWS)),
        len(rows),
        base_fingerprint=index.base_fingerprint,
        encoder_fingerprint=index.encoder_fingerprint,
        dtype=index.dtype,  # widened by vectors(), and narrowed again without loss
        device=index.device,
    )


def _exclude_others(rows: Int[Tensor, " _"], total: int) -> Bool[Tensor, " N"]:
    excluded_rows = torch.ones(total, dtype=torch.bool)
    excluded_rows[rows] = False
    return excluded_rows
