r"""Estimate log Z over a whole base from the best rows and from rows drawn uniformly, without a pass over the base.

With logits :math:`s_n = q \cdot v_n`, S the known rows (those that a search found, and every candidate) and M the
number of rows that are neither known nor excluded,

.. math:: \hat Z = \sum_{n \in S} e^{s_n} + \frac{M}{m} \sum_{j=1}^{m} e^{s_j}, \qquad j \text{ uniform over the M rows}

(Mussmann, Levy & Ermon 2017, arXiv 1707.03372). Given S, :math:`\hat Z` and its gradient are unbiased, whatever
S is; a better S lowers the variance. What training needs is the log, which is not:

.. math:: \mathrm E \log \hat Z - \log Z = -\frac{\mathrm{Var} \hat Z}{2 Z^2} + O(m^{-2}), \qquad
   \mathrm{Var} \hat Z = \frac{M^2}{m} \mathrm{Var}_j\, e^{s_j}

(delta method). The gradient of :math:`\log \hat Z` is biased by the gradient of that. Both shrink like 1/m. The
variance of the draws estimates :math:`\mathrm{Var} \hat Z`, hence the standard error and the bias that are returned.
Where M ≤ m every row is taken once, and nothing is estimated.

**What the error cannot show.** A heavy row that the search missed and no draw met, which is likely where M ≫ m, is
neither in :math:`\hat Z` nor in its error. The more a search misses, the more often the interval is too narrow: see
`retrograd.index.protocol.EstimableIndex.recall` and ``benchmarks/normaliser.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.index.protocol import Index, require_query
from retrograd.index.streaming import attach_gradient

__all__ = [
    "LogNormaliserEstimate",
    "combine_draws",
    "draw_outside",
    "estimate_log_normaliser",
]

_CELLS = 2**24
"""Numbers of vectors held at once: 64 MiB in fp32."""


@dataclass(frozen=True)
class LogNormaliserEstimate:
    """An estimate of log Z in nats, with gradient in the query, and its standard error in nats (detached)."""

    value: Float[Tensor, " B"]
    standard_error: Float[Tensor, " B"]

    @property
    def bias(self) -> Float[Tensor, " B"]:
        """Return the estimated bias of ``value`` in nats, to first order in 1/m: it is never above 0."""
        return -0.5 * self.standard_error.square()


def estimate_log_normaliser(
    index: Index,
    query: Float[Tensor, "B D"],
    known: Int[Tensor, "B S"],
    draws: int,
    rng: torch.Generator,
    exclude: Int[Tensor, "B E"] | None = None,
) -> LogNormaliserEstimate:
    """Estimate log Z of each query from its ``known`` rows and ``draws`` rows that are drawn uniformly from the others.

    Rows -1 are padding, and a row that comes twice counts once; excluded rows are neither counted nor drawn, even where
    they are known. The index must hold every row of its base. Sums are taken in log space, in fp32 (float64 for float64
    vectors).

    Cost: S + m rows of vectors a query are read; they are scored by the stored vectors, as candidates are. Raises
    `ValueError` for fewer than two draws, and as `ExactIndex.search` does.
    """
    if draws < 2:
        raise ValueError(f"draws is {draws}; expected at least 2, of which an error can be estimated")
    require_query(query, exclude, len(index), query.shape[1])
    excluded = known.new_empty(len(known), 0) if exclude is None else exclude.to(known.device)
    known = _mask_repeated(known.masked_fill((known.unsqueeze(-1) == excluded.unsqueeze(1)).any(dim=-1), -1))
    drawn, others = draw_outside(torch.cat([known, excluded], dim=-1), len(index), draws, rng)
    rows, others = torch.cat([known, drawn.to(known.device)], dim=-1), others.to(known.device)
    parts = _block_queries(rows.shape[1] * query.shape[1], len(query))
    estimates = [_estimate_block(index, query[part].detach(), rows[part], others[part], draws) for part in parts]
    value, mean, error = (torch.cat(pieces) for pieces in zip(*estimates, strict=True))
    return LogNormaliserEstimate(attach_gradient(query, value, mean), error)


def draw_outside(
    known: Int[Tensor, "B S"], rows: int, draws: int, rng: torch.Generator
) -> tuple[Int[Tensor, "B M"], Int[Tensor, " B"]]:
    """Draw rows of 0 … ``rows`` - 1, uniformly and with replacement, that are not ``known``; also count the latter.

    Returns the draws, and how many rows of each query are not known. Where these are no more than ``draws``, each is
    returned once, in order, and the rest is -1.

    The r-th of the unknown rows is r + the number of known rows below it; with the known rows e_0 < e_1 < … that is
    the number of i for which e_i - i ≤ r.
    """
    distinct = _mask_repeated(known).to(rng.device)
    distinct = distinct.masked_fill(distinct < 0, rows).sort(dim=-1).values  # padding comes last
    place = torch.arange(distinct.shape[1], device=distinct.device)
    unknown_below = torch.where(distinct < rows, distinct - place, rows).contiguous()
    others = rows - (distinct < rows).sum(dim=-1)
    uniform = torch.rand(len(known), draws, generator=rng, device=rng.device, dtype=torch.float64)
    drawn = (uniform * others.unsqueeze(-1)).long().minimum((others - 1).clamp(min=0).unsqueeze(-1))
    every = torch.arange(draws, device=distinct.device).expand(len(known), -1)
    rank = torch.where(others.unsqueeze(-1) > draws, drawn, every)
    row = rank + torch.searchsorted(unknown_below, rank.contiguous(), right=True)
    return row.masked_fill(rank >= others.unsqueeze(-1), -1), others


def combine_draws(
    known_logit: Float[Tensor, "B S"], drawn_logit: Float[Tensor, "B M"], others: Int[Tensor, " B"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, "B _"], Float[Tensor, " B"]]:
    r"""Return log Ẑ, the share of Ẑ of each known and drawn row, and the standard error of log Ẑ in nats.

    ``others`` counts the rows that are not known, of which the m logits are draws; where they are no more than m the
    draws are all of them. Absent rows have the logit ``-inf``. The error is :math:`\sqrt{\widehat{\mathrm{Var}} \hat Z}
    / \hat Z`, by the unbiased variance of the draws.
    """
    draws = drawn_logit.shape[1]
    estimated = others > draws
    log_scale = torch.where(estimated, others, draws).to(drawn_logit.dtype).log().unsqueeze(-1)
    each = torch.cat([known_logit, drawn_logit + log_scale - math.log(draws)], dim=-1)
    total = each.logsumexp(dim=-1)
    shift = total.masked_fill(total == -torch.inf, 0.0).unsqueeze(-1)
    # Each draw alone estimates by how much the unknown rows add to Ẑ, relative to it: at most m, as their mean is ≤ 1.
    variance = (drawn_logit + log_scale - shift).exp().var(dim=-1) / draws
    return total, (each - shift).exp(), variance.sqrt().masked_fill(~estimated, 0.0)


def _estimate_block(
    index: Index, query: Float[Tensor, "b D"], rows: Int[Tensor, "b R"], others: Int[Tensor, " b"], draws: int
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b D"], Float[Tensor, " b"]]:
    """Return log Ẑ, its gradient (the mean vector under the shares), and its standard error, without gradient."""
    vectors = index.vectors(rows)
    logit = (vectors @ query.to(vectors.dtype).unsqueeze(-1)).squeeze(-1).masked_fill(rows < 0, -torch.inf)
    value, share, error = combine_draws(logit[:, :-draws], logit[:, -draws:], others)
    return value, (share.unsqueeze(1) @ vectors).squeeze(1), error


def _mask_repeated(rows: Int[Tensor, "B S"]) -> Int[Tensor, "B S"]:
    """Return the rows in ascending order, -1 where one comes again."""
    ordered = rows.sort(dim=-1).values
    is_repeated: Bool[Tensor, "B S"] = torch.nn.functional.pad(ordered[:, 1:] == ordered[:, :-1], (1, 0))
    return ordered.masked_fill(is_repeated, -1)


def _block_queries(cells: int, queries: int) -> list[slice]:
    """Return slices of the queries whose vectors, ``cells`` numbers a query, are held at once; one without queries."""
    size = max(1, _CELLS // max(1, cells))
    return [slice(start, start + size) for start in range(0, max(1, queries), size)]
