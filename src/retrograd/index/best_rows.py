"""Running top-K over blocks of rows; among equal logits the lower row wins, at the K-th place too.

Once K rows are carried, a row of a later block enters only above the K-th logit (an equal one has a lower row), and few
do: with N rows seen in random order, about K·n/N of a block of n. So a block costs one comparison, not a selection.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["BestRows", "add_block", "add_entries", "list_entries"]

_FEW = 4
"""Up to this many times K entering rows per query are listed; where more enter, a selection is cheaper."""


@dataclass(frozen=True)
class BestRows:
    """The best rows so far, best first and equal logits by row; row -1 or logit ``-inf`` where there are fewer than
    K.
    """

    row: Int[Tensor, "B K"]
    logit: Float[Tensor, "B K"]

    @classmethod
    def empty(cls, query: Float[Tensor, "B D"], k: int) -> BestRows:
        """Return K padded entries, in the type and on the device of ``query``."""
        shape = (len(query), k)
        return cls(query.new_full(shape, -1, dtype=torch.long), query.new_full(shape, -torch.inf))

    @property
    def last(self) -> Float[Tensor, "B 1"]:
        """Return the K-th logit, which a row must exceed to enter."""
        return self.logit[:, -1:]


def add_block(best: BestRows, logits: Float[Tensor, "B rows"], first_row: int) -> BestRows:
    """Return the K best of ``best`` and of a block whose rows are all higher; ``-inf`` means that a row is excluded."""
    if bool((best.last > -torch.inf).all()):
        entries = list_entries(logits > best.last, _FEW * best.logit.shape[1])
        if entries is not None:
            query, column, position, width = entries
            logit = logits.new_full((len(logits), width), -torch.inf)
            logit[query, position] = logits[query, column]
            row = torch.full_like(logit, -1, dtype=torch.long)
            row[query, position] = column + first_row
            return add_entries(best, row, logit)
    logit, column = _select_block(best, logits)
    return add_entries(best, column + first_row, logit)


def add_entries(best: BestRows, row: Int[Tensor, "B H"], logit: Float[Tensor, "B H"]) -> BestRows:
    """Return the K best of ``best`` and of H further rows, which ascend in each line and are higher than those of
    ``best``.
    """
    if logit.shape[1] == 0:
        return best
    k = best.logit.shape[1]
    logit, order = torch.cat([best.logit, logit], dim=1).sort(dim=1, descending=True, stable=True)
    return BestRows(torch.cat([best.row, row], dim=1).gather(1, order[:, :k]), logit[:, :k])


def list_entries(
    enters: Bool[Tensor, "B rows"], most: int
) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"], Int[Tensor, " P"], int] | None:
    """Return the P true entries (query, column ascending within it, position among its entries) and the most per query.

    None if a query has more than ``most``: memory is then bounded by O(B·most), whatever the order of the rows.
    """
    if int(enters.count_nonzero()) > most * len(enters):
        return None
    query, column = enters.nonzero(as_tuple=True)
    count = torch.bincount(query, minlength=len(enters))
    width = int(count.max()) if len(query) else 0
    if width > most:
        return None
    position = torch.arange(len(query), device=query.device) - (count.cumsum(0) - count)[query]
    return query, column, position, width


def _select_block(
    best: BestRows, logits: Float[Tensor, "B rows"]
) -> tuple[Float[Tensor, "B kept"], Int[Tensor, "B kept"]]:
    """Return at most K + 1 logits of a block with their columns ascending, the K best among them."""
    k = best.logit.shape[1]
    logit, column = logits.topk(min(k + 1, logits.shape[1]), dim=1)
    if logit.shape[1] > k:
        # torch.topk picks freely among equals. That matters only if equals straddle the K-th place and beat the K-th
        # carried so far (whose rows are lower); those queries, and nobody else, pay for a stable sort of the block.
        tied = (logit[:, k - 1] == logit[:, k]) & (logit[:, k] > best.logit[:, -1])
        if bool(tied.any()):
            value, position = logits[tied].sort(dim=1, descending=True, stable=True)
            logit[tied], column[tied] = value[:, : k + 1], position[:, : k + 1]
    column, order = column.sort(dim=1)
    return logit.gather(1, order), column
