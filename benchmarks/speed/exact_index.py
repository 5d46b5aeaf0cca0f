"""One exact pass over a million vectors, in units of the bare blocked product, and against faiss's exact index.

The unit is the product of every block of rows with the queries in fp32: the least that any exact search does. faiss
runs with the batch size above which it calls BLAS at 20; as shipped it is slower.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from benchmarks.index import NAMES, STORAGE, blocked_product, faiss_searches, world
from benchmarks.speed.measuring import Aim, Measured, Row, medians, take_turns

from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex

__all__ = ["ROWS"]

_ROWS, _WIDTH, _QUERIES, _K = 1_000_000, 384, 32, 20


def measure_against(unit: str, storage: str, gradient: bool) -> Callable[[int], Measured]:
    """Return the measurement of top 20, or of top 20 with log Z and its gradient, in a ``unit``."""

    def measure(repeats: int) -> Measured:
        vectors, query = world(_ROWS, _WIDTH, _QUERIES)
        exclude = torch.arange(_QUERIES)[:, None]
        index = ExactIndex(vectors, dtype=STORAGE[storage], **NAMES)
        learning = query.clone().requires_grad_()

        def search() -> object:
            if gradient:
                index.search(learning, _K, exclude).log_normaliser.sum().backward()
                return None
            return index.top_k(query, _K, exclude)

        if unit == "product":
            theirs = blocked_product(vectors, query)
        else:
            flat = FaissIndex(vectors, "Flat", queries=query, **NAMES)
            theirs = list(faiss_searches(flat, query, _K, exclude).values())[-1]
        seconds = take_turns({unit: theirs, "ours": search}, repeats)
        ratios = [ours / own for ours, own in zip(seconds["ours"], seconds[unit], strict=True)]
        return ratios, medians(seconds), f"{_ROWS:,} x {_WIDTH}, {_QUERIES} queries, k = {_K}, stored in {storage}"

    return measure


ROWS = tuple(
    Row(
        f"index-{'log-z' if gradient else 'top-k'}-{storage}",
        f"exact top 20{' with log Z and gradient' if gradient else ''}, {storage}",
        "blocked product",
        measure_against("product", storage, gradient),
        Aim(2.0 if gradient else 1.1, at_least=False),
    )
    for gradient in (False, True)
    for storage in ("fp32", "bf16")
) + tuple(
    Row(
        f"index-faiss-{storage}",
        f"exact top 20, {storage}",
        "faiss Flat, BLAS from 20 queries on",
        measure_against("faiss", storage, gradient=False),
        Aim(1.3, at_least=False),
    )
    for storage in ("fp32", "bf16")
)
