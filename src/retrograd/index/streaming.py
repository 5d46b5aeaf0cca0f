r"""One pass over the embeddings: top-K, log-normaliser, softmax mean and exact samples, in memory independent of N.

With logits :math:`s_n = q \cdot v_n`, the pass carries from block to block, for each query,

.. math::  m = \max_n s_n, \qquad  Z' = \sum_n e^{s_n - m}, \qquad  \mu' = \sum_n e^{s_n - m} v_n,

so that :math:`\log Z = m + \log Z'` and :math:`\partial \log Z / \partial q = \mu' / Z'`: attention over the knowledge
base (online softmax: Milakov & Gimelshein 2018; with values: Rabe & Staats 2021, Dao et al. 2022). When a block raises
m, what was carried is scaled by :math:`e^{m_{old} - m_{new}}`.

Samples are Gumbel-max without a Gumbel for every row: the largest of :math:`s_n + g_n` in a block is distributed as
:math:`\operatorname{logsumexp}_n s_n + g` and is independent of where it stands, so one Gumbel and one uniform a block
and draw suffice (Maddison, Tarlow, Minka, "A* sampling", 2014).

The vectors come as a sequence of shards [n D], whose rows are numbered on from one to the next; one tensor is a
sequence of one.

Blocks stored in half precision are widened before the product: every number below is exact for the *stored* vectors.
A bf16 product would be faster on some processors, but its logits carry 8 bits: at a logit of 20 an error of 0.06 nats,
too much for log Z. It may find the top K all the same: `retrograd.index.top_rows`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from retrograd.index.best_rows import BestRows, add_block
from retrograd.index.shards import split_blocks

__all__ = ["ExcludedRows", "StreamResult", "attach_gradient", "gumbel_maxima", "score_blocks", "stream"]


@dataclass(frozen=True)
class StreamResult:
    """Detached result of one pass; ``mean`` is the softmax-mean embedding (zero where all is excluded)."""

    row: Int[Tensor, "B K"]
    logit: Float[Tensor, "B K"]
    log_normaliser: Float[Tensor, " B"]
    mean: Float[Tensor, "B D"] | None


@dataclass(frozen=True)
class _Softmax:
    """The running m, Z' and μ' of the module's equations; m is ``-inf`` before the first row that is not excluded."""

    peak: Float[Tensor, "B 1"]
    mass: Float[Tensor, "B 1"]
    moment: Float[Tensor, "B D"] | None


@torch.no_grad()
def stream(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    k: int,
    exclude: Int[Tensor, "B E"] | None,
    *,
    block_rows: int,
    need_mean: bool,
    excluded_rows: Bool[Tensor, " N"] | None = None,
) -> StreamResult:
    """Compute top-K, log-normaliser and, with ``need_mean``, the softmax mean: two products a block with the mean, else
    one.

    ``excluded_rows`` marks rows excluded for every query, ``exclude`` lists rows excluded for one.
    Memory beyond ``vectors``: O(B·K + (B + D)·block_rows). All arithmetic is fp32, or float64 for float64 vectors.
    """
    dtype = _accumulator(vectors[0].dtype)
    query = query.to(dtype)
    best = BestRows.empty(query, k)
    softmax = _Softmax(
        query.new_full((len(query), 1), -torch.inf),
        query.new_zeros(len(query), 1),
        torch.zeros_like(query) if need_mean else None,
    )
    with torch.autocast(query.device.type, enabled=False):  # autocast would turn the products into bf16
        for first_row, block, logits in score_blocks(vectors, query, exclude, block_rows, excluded_rows):
            if k:
                best = add_block(best, logits, first_row)
                peak = best.logit[:, :1]
            else:
                peak = torch.maximum(softmax.peak, logits.amax(1, keepdim=True))
            softmax = _absorb_block(softmax, logits, block, peak)
    mean = None if softmax.moment is None else softmax.moment / softmax.mass.masked_fill(softmax.mass == 0, 1)
    return StreamResult(
        row=best.row.masked_fill(best.logit == -torch.inf, -1),
        logit=best.logit,
        log_normaliser=(softmax.peak + softmax.mass.log())[:, 0],
        mean=mean,
    )


@torch.no_grad()
def gumbel_maxima(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    draws: int,
    rng: torch.Generator,
    exclude: Int[Tensor, "B E"] | None,
    *,
    block_rows: int,
    excluded_rows: Bool[Tensor, " N"] | None = None,
) -> tuple[Int[Tensor, "B M"], Float[Tensor, "B M"]]:
    """Draw independent exact samples (with replacement) from softmax(logits) over all N rows; -1 where all is excluded.

    With each comes the perturbed logit that won, max_n (s_n + g_n): where the base lies in parts, the part with the
    largest one has the draw of the whole. It is ``-inf`` where all is excluded.

    Memory beyond ``vectors``: O(B·M + (B + D)·block_rows). How much of ``rng`` is used depends on B, M and
    the number of blocks alone.
    """
    query = query.to(_accumulator(vectors[0].dtype))
    shape = (len(query), draws)
    row = torch.full(shape, -1, dtype=torch.long, device=query.device)
    highest = torch.full(shape, -torch.inf, dtype=torch.float64, device=query.device)
    with torch.autocast(query.device.type, enabled=False):
        for first_row, _, logits in score_blocks(vectors, query, exclude, block_rows, excluded_rows):
            peak = _finite(logits.amax(1, keepdim=True))
            cumulative = logits.sub_(peak).exp_().cumsum(1, dtype=torch.float64)
            total = cumulative[:, -1:]
            exponential = torch.empty(shape, dtype=torch.float64, device=rng.device).exponential_(generator=rng)
            uniform = torch.rand(shape, dtype=torch.float64, device=rng.device, generator=rng).to(query.device)
            value = peak.double() + total.log() - exponential.to(query.device).log()  # -log Exp(1) is a Gumbel
            # uniform < 1, so uniform * total < total, and an excluded row (no width of its own) is never met
            column = torch.searchsorted(cumulative, uniform * total, right=True)
            row = torch.where(value > highest, column + first_row, row)
            highest = torch.maximum(highest, value)
    return row, highest


def _accumulator(storage: torch.dtype) -> torch.dtype:
    return torch.float64 if storage == torch.float64 else torch.float32


def _finite(peak: Float[Tensor, "B 1"]) -> Float[Tensor, "B 1"]:
    """Replace -inf by 0: exp(-inf - 0) is 0, where exp(-inf + inf) would be NaN."""
    return peak.masked_fill(peak == -torch.inf, 0)


def score_blocks(
    vectors: Sequence[Float[Tensor, "_ D"]],
    query: Float[Tensor, "B D"],
    exclude: Int[Tensor, "B E"] | None,
    block_rows: int,
    excluded_rows: Bool[Tensor, " N"] | None,
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (first row, block [block_rows D], logits [B block_rows]) with ``-inf`` at excluded rows.

    Block and logits live in buffers that the next step overwrites; the caller may overwrite the logits too.
    """
    block_rows = max(1, min(block_rows, max(len(shard) for shard in vectors)))
    logits_buffer = query.new_empty(len(query) * block_rows)
    widened_buffer = None if vectors[0].dtype == query.dtype else query.new_empty(block_rows, query.shape[1])
    # A CPU's matrix product packs its second factor: with the block as the first, the few queries are packed instead,
    # and turning the logits round costs less than it saves (400,000 x 384, 32 queries, two threads: blocks of
    # 8,192 rows took 100 ms instead of 143).
    transposed = query.new_empty(block_rows, len(query)) if query.device.type == "cpu" else None
    excluded = ExcludedRows.of(exclude, excluded_rows, query)
    for first_row, block in split_blocks(vectors, block_rows):
        if widened_buffer is not None:
            block = widened_buffer[: len(block)].copy_(block)
        logits = logits_buffer[: len(query) * len(block)].view(len(query), len(block))
        if transposed is None:
            torch.mm(query, block.T, out=logits)
        else:
            logits.copy_(torch.mm(block, query.T, out=transposed[: len(block)]).T)
        excluded.mask(logits, first_row)
        yield first_row, block, logits


@dataclass(frozen=True)
class ExcludedRows:
    """Excluded (query, row) pairs, sorted by row so that a block without one costs two bisections, and rows excluded
    for all queries.
    """

    query: Int[Tensor, " P"]
    row: Int[Tensor, " P"]
    sorted_rows: list[int]
    excluded_rows: Bool[Tensor, " N"] | None

    @classmethod
    def of(
        cls, exclude: Int[Tensor, "B E"] | None, excluded_rows: Bool[Tensor, " N"] | None, query: Float[Tensor, "B D"]
    ) -> ExcludedRows:
        if exclude is None:
            exclude = torch.empty(len(query), 0, dtype=torch.long)
        exclude = exclude.to(query.device)
        line, column = (exclude >= 0).nonzero(as_tuple=True)
        row, order = exclude[line, column].long().sort()
        return cls(line[order], row, row.tolist(), excluded_rows)

    def mask(self, logits: Float[Tensor, "B rows"], first_row: int) -> None:
        start = bisect_left(self.sorted_rows, first_row)
        stop = bisect_left(self.sorted_rows, first_row + logits.shape[1])
        if start < stop:
            logits[self.query[start:stop], self.row[start:stop] - first_row] = -torch.inf
        if self.excluded_rows is not None:
            logits.masked_fill_(self.excluded_rows[first_row : first_row + logits.shape[1]], -torch.inf)


def _absorb_block(
    softmax: _Softmax, logits: Float[Tensor, "B rows"], block: Float[Tensor, "rows D"], peak: Float[Tensor, "B 1"]
) -> _Softmax:
    """Add a block to Z' and μ', with m the new ``peak``. Overwrites ``logits`` with exp(logits - m), Z' and μ' too."""
    shift = _finite(peak)
    rescale = (softmax.peak - shift).exp_()
    weight = logits.sub_(shift).exp_()
    mass = softmax.mass.mul_(rescale).add_(weight.sum(1, keepdim=True))
    moment = None if softmax.moment is None else softmax.moment.mul_(rescale).addmm_(weight, block)
    return _Softmax(peak, mass, moment)


def attach_gradient(
    query: Float[Tensor, "B D"], value: Float[Tensor, " B"], mean: Float[Tensor, "B D"]
) -> Float[Tensor, " B"]:
    """Attach its gradient to a log Z already computed: d log Z / d query is the softmax-mean embedding. Once only."""
    return _LogNormaliser.apply(query, value, mean)  # pyright: ignore[reportReturnType]


class _LogNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Float[Tensor, "B D"], value: Float[Tensor, " B"], mean: Float[Tensor, "B D"]
    ) -> Float[Tensor, " B"]:
        ctx.save_for_backward(mean.to(query.dtype))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: FunctionCtx, grad: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], None, None]:
        (mean,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return grad[:, None].to(mean.dtype) * mean, None, None
