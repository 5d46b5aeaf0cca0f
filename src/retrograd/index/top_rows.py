r"""The K best rows alone, without log Z: from bf16 storage by a bf16 product, with the rows of the fp32 one.

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

from retrograd.index.best_rows import BestRows, entries_of, with_block, with_entries
from retrograd.index.shards import row_blocks
from retrograd.index.streaming import AbsentRows, scored_blocks

__all__ = ["TopRows"]

_HEAD_ROWS = 2_048
"""Rows multiplied in fp32 first, so that there is a K-th logit to compare with."""
_FEW = 16
"""Up to this many times K rows of a block are taken one by one: a row costs some 10 times its share of a product."""
_RESCORED = 8_192
"""Pairs of query and row taken in fp32 at once: what is gathered for them stays as small as a block."""
_PROBED_BLOCKS = 4


class TopRows:
    """Searches one matrix, [N D] in shards, for top-K alone.

    What it measures, it measures once: the largest norm (one pass), and whether the bf16 product pays, for each order
    of magnitude of batch and k. Say `vectors_changed` where vectors are replaced.
    """

    def __init__(self, vectors: Sequence[Float[Tensor, "_ D"]], block_rows: int) -> None:
        self._vectors = vectors
        self._block_rows = block_rows
        self._largest_norm: float | None = None
        self._pays: dict[tuple[int, int], bool] = {}

    def vectors_changed(self) -> None:
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
        """The k best rows; row -1 where there are fewer. ``bf16_product`` None takes whichever product is faster."""
        dtype = torch.promote_types(self._vectors[0].dtype, torch.float32)
        query = query.to(dtype)
        if bf16_product is None:
            bf16_product = self.bf16_pays(query, k)
        with torch.autocast(query.device.type, enabled=False):
            if bf16_product and self._vectors[0].dtype == torch.bfloat16:
                best = _shortlisted(self._vectors, query, k, exclude, self._block_rows, self._norm())
            else:
                best = _selected(self._vectors, query, k, exclude, self._block_rows)
        return BestRows(best.row.masked_fill(best.logit == -torch.inf, -1), best.logit)

    @torch.no_grad()
    def bf16_pays(self, query: Float[Tensor, "B D"], k: int) -> bool:
        """Whether a bf16 product is faster for such a batch, measured; never without instructions for it."""
        rows = _PROBED_BLOCKS * self._block_rows
        longest = max(self._vectors, key=len)
        if len(longest) < rows or not _multiplies_bf16(longest):
            return False
        size = len(query).bit_length(), k.bit_length()
        if size not in self._pays:
            some, norm, query = [longest[:rows]], self._norm(), query.float()
            with torch.autocast(query.device.type, enabled=False):
                fp32 = _seconds(lambda: _selected(some, query, k, None, self._block_rows))
                bf16 = _seconds(lambda: _shortlisted(some, query, k, None, self._block_rows, norm))
            self._pays[size] = bf16 < fp32
        return self._pays[size]

    def _norm(self) -> float:
        if self._largest_norm is None:
            blocks = row_blocks(self._vectors, self._block_rows)
            self._largest_norm = max((float(block.float().norm(dim=1).max()) for _, block in blocks), default=0.0)
        return self._largest_norm


def _seconds(action: Callable[[], object]) -> float:
    """The shortest of three runs: the first also pays for work space."""
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        action()
        best = min(best, time.perf_counter() - start)
    return best


def _multiplies_bf16(vectors: Float[Tensor, "_ D"]) -> bool:
    """Whether the processor has instructions for it, else a bf16 product is emulated. GPUs: fp32 pass only, so far."""
    if vectors.dtype != torch.bfloat16 or vectors.device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if not hasattr(torch.cpu, "get_capabilities"):  # before torch 2.12
        return False
    has = torch.cpu.get_capabilities()
    return any(has.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def _selected(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    k: int,
    exclude: Int[Tensor, "B E"] | None,
    block_rows: int,
) -> BestRows:
    best = BestRows.none_yet(query, k)
    for first_row, _, logits in scored_blocks(vectors, query, exclude, block_rows, None):
        best = with_block(best, logits, first_row)
    return best


def _shortlisted(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    k: int,
    exclude: Int[Tensor, "B E"] | None,
    block_rows: int,
    largest_norm: float,
) -> BestRows:
    best = BestRows.none_yet(query, k)
    rounded = query.bfloat16()
    error = (query - rounded.float()).norm(dim=1) + 4 * query.shape[1] * 2**-24 * query.norm(dim=1)
    bound = largest_norm * error[:, None]
    absent = AbsentRows.of(exclude, None, query)
    buffer = rounded.new_empty(len(query) * block_rows)
    for first_row, block in row_blocks(_with_head(vectors), block_rows):
        if bool((best.last > -torch.inf).all()):
            logits = buffer[: len(query) * len(block)].view(len(query), len(block))
            torch.mm(rounded, block.T, out=logits)
            absent.strike(logits, first_row)
            floor = (best.last - bound).bfloat16()
            floor = floor.nextafter(torch.full_like(floor, -torch.inf))
            listed = entries_of(logits >= floor, _FEW * k)
            if listed is not None:
                best = _rescored(best, query, block, first_row, listed)
                continue
        logits = query @ block.float().T
        absent.strike(logits, first_row)
        best = with_block(best, logits, first_row)
    return best


def _with_head(vectors: Sequence[Float[Tensor, "_ D"]]) -> Sequence[Float[Tensor, "_ D"]]:
    return [vectors[0][:_HEAD_ROWS], vectors[0][_HEAD_ROWS:], *vectors[1:]]


def _rescored(
    best: BestRows,
    query: Float[Tensor, "B D"],
    block: Float[Tensor, "rows D"],
    first_row: int,
    listed: tuple[Int[Tensor, " P"], Int[Tensor, " P"], Int[Tensor, " P"], int],
) -> BestRows:
    """The listed rows' logits in fp32, and the K best with them."""
    asking, column, place, width = listed
    logit = query.new_full((len(query), width), -torch.inf)
    for some in torch.arange(len(asking), device=query.device).split(_RESCORED):
        logit[asking[some], place[some]] = (query[asking[some]] * block[column[some]].float()).sum(dim=1)
    row = torch.full_like(logit, -1, dtype=torch.long)
    row[asking, place] = column + first_row
    return with_entries(best, row, logit)
