r"""Top-K alone, without log Z: from bf16 storage by a bf16 product that gives the rows of the fp32 product.

Let t be the K-th best logit so far, taken in fp32. A later row enters only with :math:`s_n = q \cdot v_n > t`. With
:math:`\tilde q` the query rounded to bf16 (the stored v are bf16 already), a bf16 product accumulates in fp32 and
rounds once, at the end: it gives :math:`\operatorname{rnd}(r_n)` with, by Cauchy and Schwarz,

.. math::  |r_n - s_n| \le A = V\,(\lVert q - \tilde q\rVert + 4 D\, 2^{-24} \lVert q\rVert),
           \qquad V = \max_n \lVert v_n \rVert,

the second term being twice the classical bound for the two fp32 sums compared (Higham 2002, §3.1). Rounding is
monotone, so a row that enters has :math:`\operatorname{rnd}(r_n) \ge \operatorname{rnd}(t - A)`; one step of bf16 lower
allows for hardware that cuts instead of rounding to nearest. Rows above that floor, K or so a block, are taken in fp32
from the stored vectors; a block with many of them, and the first, is multiplied in fp32 whole. Nothing is missed
whatever the data: only the speed depends on it. Logits equal those of the fp32 product up to its own rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.best_rows import BestRows, add_block, add_entries, list_entries
from retrograd.index.shards import split_blocks
from retrograd.index.streaming import ExcludedRows, score_blocks

__all__ = ["TopRows"]

_HEAD_ROWS = 2_048
"""Rows multiplied in fp32 first, so that there is a K-th logit to compare with."""
_FEW = 16
"""Up to this many times K rows of a block are taken one by one: a row costs some 10 times its share of a product."""
_RESCORED = 8_192
"""Pairs of query and row taken in fp32 at once: what is gathered for them stays as small as a block."""
_PROBED_BLOCKS = 4


class TopRows:
    """A searcher of one matrix, [N D] in shards, for top-K alone.

    What it measures, it measures once: the largest norm (one pass), and whether the bf16 product pays, for each order
    of magnitude of batch and k. Say `forget_vectors` where vectors are replaced.
    """

    def __init__(self, vectors: Sequence[Float[Tensor, "_ D"]], block_rows: int) -> None:
        self._vectors = vectors
        self._block_rows = block_rows
        self._largest_norm: float | None = None
        self._pays: dict[tuple[int, int], bool] = {}

    def forget_vectors(self) -> None:
        """Forget what depends on the vectors: the largest norm."""
        self._largest_norm = None

    @torch.no_grad()
    def search(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None,
        bf16_product: bool | None,
    ) -> BestRows:
        """Return the k best rows; row -1 where there are fewer.

        ``bf16_product`` None takes whichever product is faster.
        """
        dtype = torch.promote_types(self._vectors[0].dtype, torch.float32)
        query = query.to(dtype)
        if bf16_product is None:
            bf16_product = self.bf16_pays(query, k)
        with torch.autocast(query.device.type, enabled=False):
            if bf16_product and self._vectors[0].dtype == torch.bfloat16:
                best = _shortlist_rows(self._vectors, query, k, exclude, self._block_rows, self._norm())
            else:
                best = _select_rows(self._vectors, query, k, exclude, self._block_rows)
        return BestRows(best.row.masked_fill(best.logit == -torch.inf, -1), best.logit)

    @torch.no_grad()
    def bf16_pays(self, query: Float[Tensor, "B D"], k: int) -> bool:
        """Return whether a bf16 product was measured to be faster for such a batch; False without instructions for
        it.
        """
        rows = _PROBED_BLOCKS * self._block_rows
        longest = max(self._vectors, key=len)
        if len(longest) < rows or not _multiplies_bf16(longest):
            return False
        size = len(query).bit_length(), k.bit_length()
        if size not in self._pays:
            sample, norm, query = [longest[:rows]], self._norm(), query.float()
            with torch.autocast(query.device.type, enabled=False):
                fp32 = _time_action(lambda: _select_rows(sample, query, k, None, self._block_rows))
                bf16 = _time_action(lambda: _shortlist_rows(sample, query, k, None, self._block_rows, norm))
            self._pays[size] = bf16 < fp32
        return self._pays[size]

    def _norm(self) -> float:
        if self._largest_norm is None:
            blocks = split_blocks(self._vectors, self._block_rows)
            self._largest_norm = max((float(block.float().norm(dim=1).max()) for _, block in blocks), default=0.0)
        return self._largest_norm


def _time_action(action: Callable[[], object]) -> float:
    """Return the seconds of the fastest of three runs, because the first also allocates work space."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def _multiplies_bf16(vectors: Float[Tensor, "_ D"]) -> bool:
    """Return whether the processor has bf16 instructions; without them a bf16 product is emulated.

    GPUs use fp32 so far.
    """
    if vectors.dtype != torch.bfloat16 or vectors.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _select_rows(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    k: int,
    exclude: Int[Tensor, "B E"] | None,
    block_rows: int,
) -> BestRows:
    best = BestRows.empty(query, k)
    for first_row, _, logits in score_blocks(vectors, query, exclude, block_rows, None):
        best = add_block(best, logits, first_row)
    return best


def _shortlist_rows(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    k: int,
    exclude: Int[Tensor, "B E"] | None,
    block_rows: int,
    largest_norm: float,
) -> BestRows:
    best = BestRows.empty(query, k)
    rounded = query.bfloat16()
    error = (query - rounded.float()).norm(dim=1) + 4 * query.shape[1] * 2**-24 * query.norm(dim=1)
    bound = largest_norm * error[:, None]
    excluded = ExcludedRows.of(exclude, None, query)
    buffer = rounded.new_empty(len(query) * block_rows)
    for first_row, block in split_blocks(_split_head(vectors), block_rows):
        if bool((best.last > -torch.inf).all()):
            logits = buffer[: len(query) * len(block)].view(len(query), len(block))
            torch.mm(rounded, block.T, out=logits)
            excluded.mask(logits, first_row)
            threshold = (best.last - bound).bfloat16()
            threshold = threshold.nextafter(torch.full_like(threshold, -torch.inf))
            entries = list_entries(logits >= threshold, _FEW * k)
            if entries is not None:
                best = _rescore_entries(best, query, block, first_row, entries)
                continue
        logits = query @ block.float().T
        excluded.mask(logits, first_row)
        best = add_block(best, logits, first_row)
    return best


def _split_head(vectors: Sequence[Float[Tensor, "_ D"]]) -> Sequence[Float[Tensor, "_ D"]]:
    return [vectors[0][:_HEAD_ROWS], vectors[0][_HEAD_ROWS:], *vectors[1:]]


def _rescore_entries(
    best: BestRows,
    query: Float[Tensor, "B D"],
    block: Float[Tensor, "rows D"],
    first_row: int,
    entries: tuple[Int[Tensor, " P"], Int[Tensor, " P"], Int[Tensor, " P"], int],
) -> BestRows:
    """Compute the logits of the listed entries in fp32, and return the K best with them."""
    query_row, column, position, width = entries
    logit = query.new_full((len(query), width), -torch.inf)
    for part in torch.arange(len(query_row), device=query.device).split(_RESCORED):
        logit[query_row[part], position[part]] = (query[query_row[part]] * block[column[part]].float()).sum(dim=1)
    row = torch.full_like(logit, -1, dtype=torch.long)
    row[query_row, position] = column + first_row
    return add_entries(best, row, logit)
