"""Measure on how few instances retrieval relies: for one query, over all queries, and between soft slots.

Slots: R weight rows over K candidates, as a relaxed selection makes them. Two things go wrong there unseen: at a high
temperature all rows are nearly the same row, and the rows together are far from the R best instances they replace.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Integer
from torch import Tensor

__all__ = [
    "Distribution",
    "Slots",
    "Usage",
    "average_slots",
    "effective_number",
    "hard_distance",
    "measure_usage",
    "perplexity",
    "slot_similarity",
]


@dataclass(frozen=True)
class Distribution:
    """The mean and percentiles of a number that each query has."""

    mean: float
    p5: float
    p25: float
    median: float
    p75: float
    p95: float

    @classmethod
    def of(cls, values: Float[np.ndarray, " Q"]) -> Distribution:
        """Summarise the values, of which there must be at least one."""
        return cls(float(values.mean()), *(float(cut) for cut in np.percentile(values, (5, 25, 50, 75, 95))))


# ---- per query ----------------------------------------------------------------------------------------------------


def effective_number(weight: Float[np.ndarray, "Q K"]) -> Float[np.ndarray, " Q"]:
    """Return 1 / Σ w², how many equal weights would be as concentrated. Rows must sum to 1."""
    return 1.0 / (weight**2).sum(axis=1)


def perplexity(weight: Float[np.ndarray, "Q K"]) -> Float[np.ndarray, " Q"]:
    """Return exp(-Σ w log w); a weight of 0 adds nothing. Rows must sum to 1."""
    log = np.log(weight, out=np.zeros_like(weight), where=weight > 0)
    return np.exp(-(weight * log).sum(axis=1))


# ---- over all queries ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Usage:
    """Counts of how often each of N instances was retrieved by Q queries.

    ``effective`` is exp of the entropy of the retrievals over instances, ``gini`` is 0 where all are retrieved equally
    often and near 1 where one is always, ``top10_share`` is what the ten most retrieved take of all retrievals.
    ``never_share`` is the share of the base that no query retrieved; ``random_never_share`` is expected of blind draws.
    """

    counts: Integer[np.ndarray, " N"]
    effective: float
    gini: float
    top10_share: float
    never_share: float
    random_never_share: float

    def hubs(self, count: int) -> list[tuple[int, int]]:
        """Return (row, times retrieved) of the most retrieved instances, leaving out those never retrieved."""
        order = np.argsort(-self.counts, kind="stable")[:count]
        return [(int(row), int(self.counts[row])) for row in order if self.counts[row] > 0]


def measure_usage(rows: Integer[np.ndarray, "Q K"], own: Sequence[Integer[np.ndarray, " _"]], base_size: int) -> Usage:
    """Count how often each of ``base_size`` instances was retrieved (-1 is padding); one at least must have been."""
    counts = np.bincount(rows[rows >= 0], minlength=base_size)
    share = counts / counts.sum()
    ordered = np.sort(counts)
    rank = 2 * np.arange(1, base_size + 1) - base_size - 1
    return Usage(
        counts=counts,
        effective=float(perplexity(share[None])[0]),
        gini=float((rank * ordered).sum() / (base_size * counts.sum())),
        top10_share=float(ordered[-10:].sum() / counts.sum()),
        never_share=float((counts == 0).mean()),
        random_never_share=_never_by_chance(rows, own, base_size),
    )


def _never_by_chance(
    rows: Integer[np.ndarray, "Q K"], own: Sequence[Integer[np.ndarray, " _"]], base_size: int
) -> float:
    """Return the mean over instances of Π_q (1 - k_q / N_q), over the queries that may retrieve the instance."""
    never_drawn = np.ones(base_size)
    for draws, excluded_rows in zip((rows >= 0).sum(axis=1), own, strict=True):
        unchanged = never_drawn[excluded_rows]
        never_drawn *= 1.0 - draws / max(base_size - len(excluded_rows), 1)
        never_drawn[excluded_rows] = unchanged
    return float(never_drawn.mean())


# ---- between slots ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Slots:
    """Means over queries that describe R soft slots, each a choice among at most ``candidates`` instances.

    ``similarity``: mean cosine between the weight rows of two slots (0: they read different instances, 1: the same
    mixture). ``hard_distance``: L1 distance of the summed weights to the hard set (0: the same, at most 2R).
    ``largest_sum``: the largest summed weight of one instance; above 1 it was chosen more than once.
    """

    count: int
    candidates: int
    similarity: float
    hard_distance: float
    largest_sum: float


def average_slots(blocks: Iterable[tuple[Float[Tensor, "_ _ _"], Float[Tensor, "_ _"]]]) -> Slots:
    """Average over queries given in blocks of weights and log p(z|x) of the candidates. K may differ between blocks."""
    parts = [(*weight.shape[1:], *_measure_slots(weight, log_prior)) for weight, log_prior in blocks]
    counts, candidates, similarity, distance, largest = zip(*parts, strict=True)
    return Slots(
        count=counts[0],
        candidates=max(candidates),
        similarity=float(torch.cat(similarity).nanmean()),
        hard_distance=float(torch.cat(distance).mean()),
        largest_sum=float(torch.cat(largest).mean()),
    )


def _measure_slots(
    weight: Float[Tensor, "B R K"], log_prior: Float[Tensor, "B K"]
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"], Float[Tensor, " B"]]:
    return slot_similarity(weight), hard_distance(weight, log_prior), weight.sum(dim=1).amax(dim=-1)


def slot_similarity(weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
    """Return the mean cosine over all pairs of different slots; a slot of zeros holds nothing and is in no pair.

    NaN for a query with fewer than two slots that hold something.
    """
    norm = weight.norm(dim=-1, keepdim=True)
    filled = norm > 0
    unit = weight / torch.where(filled, norm, 1.0)
    cosine = unit @ unit.mT
    pairs = (filled & filled.mT) & ~torch.eye(weight.shape[1], dtype=torch.bool, device=weight.device)
    return (cosine * pairs).sum(dim=(-2, -1)) / pairs.sum(dim=(-2, -1))


def hard_distance(weight: Float[Tensor, "B R K"], log_prior: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Return Σ_k |Σ_r w[r, k] - h[k]|, with h = 1 at the R candidates with the largest log p(z|x) and 0 elsewhere.

    Where there are fewer than R candidates (-inf is absence), h is 1 at them.
    """
    r = min(weight.shape[1], log_prior.shape[1])
    best = log_prior.topk(r, dim=-1).indices
    hard = torch.zeros_like(log_prior).scatter(-1, best, 1.0).masked_fill(log_prior == -torch.inf, 0.0)
    return (weight.sum(dim=1) - hard).abs().sum(dim=-1)
