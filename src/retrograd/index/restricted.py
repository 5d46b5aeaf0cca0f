"""A subset of the rows of an exact index, as an index of its own: a filter by date, by source, by language.

Everything is over the subset alone: top-K, log Z and its gradient, samples. Rows keep the numbers they have in the
whole base, so passages are looked up as ever.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.index.exact import ExactIndex
from retrograd.index.index import LogNormaliser, Neighbours, require_query, require_rows
from retrograd.types import UserError

__all__ = ["RestrictedIndex"]

_GATHERED_SHARE = 0.5
_BLOCK_ROWS = 16_384


class RestrictedIndex:
    """The given ``rows`` (distinct or not, in any order) of ``index``.

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
        rows = rows.detach().cpu().long().unique()
        if len(rows) == 0:
            raise UserError("there are no rows to restrict the index to; loosen the filter")
        if int(rows[0]) < 0:
            raise ValueError(f"row {int(rows[0])} does not exist; rows are counted from 0")
        require_rows(rows, len(index))
        self._rows = rows
        self._whole = index
        self.base_fingerprint = index.base_fingerprint
        gathered = len(rows) <= _GATHERED_SHARE * len(index) if gather is None else gather
        self._copy = _copied(index, rows) if gathered else None
        self._hidden = None if gathered else _complement(rows, len(index)).to(index.device)

    def __len__(self) -> int:
        """How many rows there are to find, not how many the base has."""
        return len(self._rows)

    @property
    def held_rows(self) -> list[int]:
        """The rows there are to find, ascending, by their numbers in the whole base."""
        return self._rows.tolist()

    @property
    def rows(self) -> Int[Tensor, " n"]:
        """The rows there are to find, ascending, by their numbers in the whole base."""
        return self._rows

    @property
    def encoder_fingerprint(self) -> str:
        """Of the vectors that are searched: those of the base as it is, or as it was when they were copied."""
        return self._whole.encoder_fingerprint if self._copy is None else self._copy.encoder_fingerprint

    @property
    def dimension(self) -> int:
        """D, the width of an embedding."""
        return self._whole.dimension

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """As `ExactIndex.search`, over the subset. Rows excluded may lie outside it."""
        if self._copy is None:
            return self._whole.search(query, k, exclude, hidden=self._hidden)
        found = self._copy.search(query, k, self._places(query, exclude))
        return Neighbours(self._numbered(found.row), found.logit, found.log_normaliser)

    def log_normaliser(
        self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None = None
    ) -> Float[Tensor, " B"]:
        """log Z over the subset, as `ExactIndex.log_normaliser`."""
        if self._copy is None:
            return self._whole.log_normaliser(query, exclude, hidden=self._hidden)
        return self._copy.log_normaliser(query, self._places(query, exclude))

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        """As `ExactIndex.sample`, from the softmax over the subset."""
        if self._copy is None:
            return self._whole.sample(query, draws, rng, exclude, hidden=self._hidden)
        return self._numbered(self._copy.sample(query, draws, rng, self._places(query, exclude)))

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Embeddings of rows of the subset, fp32; row -1 gives zeros. Raises `ValueError` for a row outside it."""
        require_rows(row, len(self._whole))
        place = self._place_of(row)
        outside = (place < 0) & (row >= 0)
        if bool(outside.any()):
            raise ValueError(
                f"row {int(row[outside][0])} is not one of the {len(self)} that the index is restricted to"
            )
        return self._whole.vectors(row) if self._copy is None else self._copy.vectors(place)

    def _places(self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None) -> Int[Tensor, "B E"] | None:
        """Where excluded rows stand in the copy; -1 for those outside the subset, which need no exclusion."""
        require_query(query, exclude, len(self._whole), self.dimension)
        return None if exclude is None else self._place_of(exclude)

    def _place_of(self, row: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        rows = self._rows.to(row.device)
        place = torch.searchsorted(rows, row.long().contiguous()).clamp(max=len(rows) - 1)
        return torch.where(rows[place] == row, place, -1)

    def _numbered(self, place: Int[Tensor, "*shape"]) -> Int[Tensor, "*shape"]:
        """Places in the copy as rows of the base. Rows ascend with places, so equal logits stay ordered by row."""
        return torch.where(place >= 0, self._rows.to(place.device)[place.clamp(min=0)], -1)


def _copied(index: ExactIndex, rows: Int[Tensor, " _"]) -> ExactIndex:
    return ExactIndex.from_blocks(
        (index.vectors(some.to(index.device)) for some in rows.split(_BLOCK_ROWS)),
        len(rows),
        base_fingerprint=index.base_fingerprint,
        encoder_fingerprint=index.encoder_fingerprint,
        dtype=index.dtype,  # widened by vectors(), and narrowed again without loss
        device=index.device,
    )


def _complement(rows: Int[Tensor, " _"], total: int) -> Bool[Tensor, " N"]:
    hidden = torch.ones(total, dtype=torch.bool)
    hidden[rows] = False
    return hidden
