"""Scores of ranked lists: recall@k, success@k, precision@k, MRR@k, nDCG@k, with binary relevance.

A metric is a frozen value: ``Recall(5)`` prints as ``recall@5`` (the naming of ir_measures) and is called on a batch,
``Recall(5)(relevant, total)``: a matrix saying which rank of which query holds a relevant item, best rank first, and
how many relevant items each query has in the whole base. It returns one share in [0, 1] per query. `relevance` makes
both from ids, `ranking_scores` averages them over the queries, in percent.

Conventions, as in trec_eval: a list shorter than k counts as filled up with irrelevant items, and a query without any
relevant item scores 0 under every metric, so filter such queries out beforehand if they should not count.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float64, Integer

from retrograd.metrics.significance import Ratio
from retrograd.types import UserError

__all__ = [
    "MRR",
    "NDCG",
    "Precision",
    "RankingMetric",
    "Recall",
    "Relevance",
    "Success",
    "ranking_ratios",
    "ranking_scores",
    "relevance",
]

Relevant = Bool[np.ndarray, "B K"]
Total = Integer[np.ndarray, " B"]
Shares = Float64[np.ndarray, " B"]


@runtime_checkable
class RankingMetric(Protocol):
    """A metric that returns one share in [0, 1] per query; its ``str`` is its name with the cut-off."""

    def __call__(self, relevant: Relevant, total: Total) -> Shares: ...


@dataclass(frozen=True, slots=True)
class Recall:
    """Share of a query's relevant items that are among the first ``k``. With one gold it equals `Success`."""

    k: int

    def __post_init__(self) -> None:
        _require_cutoff(self.k)

    def __str__(self) -> str:
        return f"recall@{self.k}"

    def __call__(self, relevant: Relevant, total: Total) -> Shares:
        retrieved = _top(relevant, total, self.k).sum(axis=1).astype(np.float64)
        return retrieved / np.maximum(total, 1)


@dataclass(frozen=True, slots=True)
class Success:
    """Success: 1 if any relevant item is among the first ``k``, else 0: what open-domain QA calls top-k accuracy."""

    k: int

    def __post_init__(self) -> None:
        _require_cutoff(self.k)

    def __str__(self) -> str:
        return f"success@{self.k}"

    def __call__(self, relevant: Relevant, total: Total) -> Shares:
        return (_top(relevant, total, self.k).sum(axis=1) > 0).astype(np.float64)


@dataclass(frozen=True, slots=True)
class Precision:
    """Share of the first ``k`` ranks that hold a relevant item; always divided by k, even where the list is shorter."""

    k: int

    def __post_init__(self) -> None:
        _require_cutoff(self.k)

    def __str__(self) -> str:
        return f"precision@{self.k}"

    def __call__(self, relevant: Relevant, total: Total) -> Shares:
        return _top(relevant, total, self.k).sum(axis=1).astype(np.float64) / self.k


@dataclass(frozen=True, slots=True)
class MRR:
    """Reciprocal rank: 1 / the rank (from 1) of the first relevant item among the first ``k``, 0 without one."""

    k: int

    def __post_init__(self) -> None:
        _require_cutoff(self.k)

    def __str__(self) -> str:
        return f"MRR@{self.k}"

    def __call__(self, relevant: Relevant, total: Total) -> Shares:
        top = _top(relevant, total, self.k)
        return (top / _ranks(top)).max(axis=1, initial=0.0)


@dataclass(frozen=True, slots=True)
class NDCG:
    """Discounted gain Σ 1/log2(1 + rank) over relevant ranks up to ``k``, divided by that of the best possible list.

    Järvelin & Kekäläinen 2002 with binary gain; the best list has min(k, total) relevant items in front.
    """

    k: int

    def __post_init__(self) -> None:
        _require_cutoff(self.k)

    def __str__(self) -> str:
        return f"nDCG@{self.k}"

    def __call__(self, relevant: Relevant, total: Total) -> Shares:
        top = _top(relevant, total, self.k)
        gain = (top / np.log2(1.0 + _ranks(top))).sum(axis=1)
        # ideal[n] is the gain of n relevant items in front, for n = 0 … k.
        ideal = np.concatenate([[0.0], np.cumsum(1.0 / np.log2(np.arange(2.0, self.k + 2.0)))])
        best = ideal[np.minimum(total, self.k)]
        return np.divide(gain, best, out=np.zeros_like(gain), where=best > 0)


def _ranks(top: Relevant) -> Float64[np.ndarray, " K"]:
    return np.arange(1.0, top.shape[1] + 1.0)


def _top(relevant: Relevant, total: Total, k: int) -> Bool[np.ndarray, "B k"]:
    """Return the first k ranks. Raises `UserError` where the two arguments contradict each other."""
    if len(relevant) != len(total):
        raise UserError(f"relevance of {len(relevant)} queries, totals of {len(total)}; expected one total per query")
    counts = relevant.sum(axis=1)
    if np.any(counts > total):
        query = int(np.argmax(counts > total))
        raise UserError(
            f"query {query} (from 0) has {counts[query]} relevant items in its list but a total of {total[query]}; "
            "the total counts the relevant items of the whole base, and a list names each item once"
        )
    return relevant[:, :k]


def _require_cutoff(k: int) -> None:
    if k < 1:
        raise UserError(f"cut-off k is {k}; expected the number of ranks to look at, 1 or more")


@dataclass(frozen=True, slots=True)
class Relevance:
    """Relevance of ranked lists: which ranks hold a relevant item [queries, ranks], and how many relevant items
    each query has [queries].
    """

    relevant: Relevant
    total: Total


def relevance(ranked: Sequence[Sequence[Hashable]], gold: Sequence[Collection[Hashable]]) -> Relevance:
    """Compare ranked ids (or knowledge-base rows), best first, with each query's set of relevant ids.

    Lists may differ in length. An id that a list repeats counts at its first rank only. Raises `UserError` for
    unequal lengths and for a query whose gold is a string (a set of letters, seldom meant).
    """
    if len(ranked) != len(gold):
        raise UserError(f"{len(ranked)} ranked lists but {len(gold)} sets of relevant ids; expected one set per list")
    relevant = np.zeros((len(ranked), max((len(ids) for ids in ranked), default=0)), dtype=np.bool_)
    total = np.zeros(len(ranked), dtype=np.int64)
    for query, (ids, gold_ids) in enumerate(zip(ranked, gold, strict=True)):
        if isinstance(gold_ids, str):
            raise UserError(
                f"relevant ids of query {query} (from 0) are the string {gold_ids!r}; expected [{gold_ids!r}]"
            )
        missing = set(gold_ids)
        total[query] = len(missing)
        for rank, item in enumerate(ids):
            if item in missing:
                missing.discard(item)
                relevant[query, rank] = True
    return Relevance(relevant, total)


def ranking_scores(metrics: Sequence[RankingMetric], relevant: Relevant, total: Total) -> dict[str, float]:
    """Return the mean of each metric over the queries, in percent, by the metric's name.

    Raises `UserError` without a query.
    """
    if len(relevant) == 0:
        raise UserError("no ranked lists to score; expected at least one query")
    return {str(metric): 100.0 * float(metric(relevant, total).mean()) for metric in metrics}


def ranking_ratios(
    metrics: Sequence[RankingMetric], relevant: Relevant, total: Total, queries: Sequence[int], items: int
) -> dict[str, Ratio]:
    """Return `ranking_scores` as ratios over ``items`` examples, of which ``queries`` are the ranked ones, to be
    resampled.
    """
    is_ranked = np.zeros(items)
    is_ranked[list(queries)] = 1.0
    ratios: dict[str, Ratio] = {}
    for metric in metrics:
        shares = np.zeros(items)
        shares[list(queries)] = metric(relevant, total)
        ratios[str(metric)] = Ratio(shares, is_ranked)
    return ratios
