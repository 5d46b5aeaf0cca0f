"""What approximate engines have in common: how much to ask of them, what their recall is, and rows dropped again."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.exact import ExactIndex
from retrograd.index.protocol import Index, Neighbours, require_query

__all__ = ["count_lists", "count_requested", "drop_rows", "measure_recall", "share_found"]

_RECALL_AT = 10
_RECALL_QUERIES = 256
_ROWS_A_LIST = 39
"""Rows of a list below which faiss warns that it cannot learn its centre."""


def count_lists(rows: int) -> tuple[int, int]:
    """Return the lists (IVF) for so many rows, and how many of them to visit.

    There are about 2 sqrt(rows), the number at which choosing lists and reading them cost about the same, and a
    sixteenth of them is visited, at least 8.
    """
    lists = max(1, min(2 ** round(math.log2(max(2 * rows**0.5, 1))), rows // _ROWS_A_LIST))
    return lists, min(lists, max(8, lists // 16))


def count_requested(
    query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None, rows: int, dimension: int
) -> int:
    """Return how many of ``rows`` rows to ask an engine for, so that k remain even if all E excluded ones are hits.

    Raises `ValueError` for k below 1, and as `require_query` does.
    """
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    require_query(query, exclude, rows, dimension)
    return min(k + (0 if exclude is None else exclude.shape[1]), rows)


def drop_rows(
    row: Int[Tensor, "B _"], logit: Float[Tensor, "B _"], exclude: Int[Tensor, "B E"] | None, k: int
) -> Neighbours:
    """Return the k best of the rows that were retrieved (-1: none) and are not excluded; padded (-1, ``-inf``)."""
    dropped = row < 0
    if exclude is not None:
        dropped |= (row[:, :, None] == exclude.to(row.device)[:, None, :]).any(dim=2)
    logit = torch.nn.functional.pad(logit.masked_fill(dropped, -torch.inf), (0, k), value=-torch.inf)
    row = torch.nn.functional.pad(row.masked_fill(dropped, -1), (0, k), value=-1)
    logit, order = logit.sort(dim=1, descending=True, stable=True)
    return Neighbours(row.gather(1, order[:, :k]), logit[:, :k], None)


def measure_recall(index: Index, exact: ExactIndex, queries: Float[Tensor, "Q D"] | None) -> float:
    """Return the share of the exact top 10 that the top 10 of ``index`` holds, over some queries.

    Without queries, for 256 rows of the base taken at equal distances; they find themselves, so it flatters.
    """
    if queries is None:
        count = min(_RECALL_QUERIES, len(exact))
        queries = exact.vectors(torch.arange(count) * len(exact) // count)
    if len(queries) == 0:
        return 1.0
    queries, k = queries.detach().cpu(), min(_RECALL_AT, len(exact))
    return share_found(exact.search(queries, k).row, index.search(queries, k).row)


def share_found(best: Int[Tensor, "Q K"], retrieved: Int[Tensor, "Q _"]) -> float:
    """Return the share of the best rows that are among those retrieved."""
    return float((best[:, :, None] == retrieved[:, None, :]).any(dim=2).double().mean())
