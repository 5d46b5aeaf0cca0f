"""Score the prior's ranking over the whole base for tasks of open answers: does it retrieve what answers?

Two notions of relevance, which `retrograd.tasks.relevance` distinguishes: the passages that somebody marked as gold,
and those that hold an answer word for word (for short answers: a passage seldom holds a whole sentence as it is).

==================  ===============================================================================================
gold_recall@k       share of an example's gold passages among the k best; of a gold document, of all its passages
gold_MRR@10         1 / the rank of the first gold passage, 0 beyond the tenth
gold_nDCG@10        discounted gain of the gold passages among the ten best, against the best possible list
answer_recall@k     1 if any of the k best holds any acceptable answer, else 0: the top-k accuracy of DPR (Karpukhin
                    et al. 2020, arXiv 2004.04906)
==================  ===============================================================================================

All are means in percent over the examples that can be judged: those with a gold passage; those with an answer, not
where the target says that there is none. What an example may not retrieve counts as not found.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.data.examples import gold_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.metrics.ranking import (
    MRR,
    NDCG,
    RankingMetric,
    Recall,
    Success,
    ranking_ratios,
    ranking_scores,
    relevance,
)
from retrograd.metrics.significance import Ratio
from retrograd.models.compute.inference import inference
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relevance import answer_rows, gold_rows, is_answerable, rows_by_id
from retrograd.types import Example

__all__ = ["RetrievalScores", "best_rows", "find_gold_rows", "open_retrieval_scores"]

CUTOFFS = (1, 5, 10, 20)
"""Recall is computed at these; cut-offs above the size of the base are left out."""
_BATCH = 64
_PASSAGES_AT_ONCE = 8_192


@dataclass(frozen=True)
class RetrievalScores:
    """Mean scores in percent by name; ``example_counts`` counts the examples behind those of "gold" and of "answer".

    ``ratios`` are the scores as functions of single examples, to be resampled.
    """

    scores: dict[str, float]
    example_counts: dict[str, int]
    ratios: dict[str, Ratio]


def find_gold_rows(base: KnowledgeBase, examples: Sequence[Example]) -> list[tuple[int, ...]]:
    """Return the rows of each example's gold passages, none where nothing is marked.

    Where any example has gold passages, the ids of the base are read once. Raises `UserError` for gold passages that
    are not in the base.
    """
    return gold_rows(examples, rows_by_id(base)) if any(map(gold_passages, examples)) else [()] * len(examples)


def open_retrieval_scores(
    model: RagModel, examples: Sequence[Example], gold_by_example: Sequence[Sequence[int]] | None = None
) -> RetrievalScores:
    """Score the ranking of every example that can be judged, with one search each, at the largest cut-off.

    ``gold_by_example`` is what `find_gold_rows` returns, where that has been called. Raises `UserError` as it does.
    """
    if gold_by_example is None:
        gold_by_example = find_gold_rows(model.base, examples)
    cutoffs = [k for k in CUTOFFS if k <= max(1, len(model.base))]
    has_gold = [bool(gold_passages(example)) for example in examples]
    has_answer = [is_answerable(model.task, example) for example in examples]
    judgeable = [b for b in range(len(examples)) if has_gold[b] or has_answer[b]]
    ranked = dict(zip(judgeable, _rank(model, [examples[b] for b in judgeable], max(cutoffs)), strict=True))
    scores: dict[str, float] = {}
    example_counts: dict[str, int] = {}
    ratios: dict[str, Ratio] = {}
    gold = [b for b in judgeable if has_gold[b]]
    if gold:
        metrics: list[RankingMetric] = [*map(Recall, cutoffs), MRR(10), NDCG(10)]
        hits = relevance([ranked[b] for b in gold], [gold_by_example[b] for b in gold])
        values = ranking_scores(metrics, hits.relevant, hits.total)
        scores |= {f"gold_{name}": value for name, value in values.items()}
        by_metric = ranking_ratios(metrics, hits.relevant, hits.total, gold, len(examples))
        ratios |= {f"gold_{name}": ratio for name, ratio in by_metric.items()}
        example_counts["gold"] = len(gold)
    answerable = [b for b in judgeable if has_answer[b]]
    if answerable:
        rows = [ranked[b] for b in answerable]
        hits = relevance(rows, _rows_with_answer(model.base, [examples[b] for b in answerable], rows))
        metrics = [*map(Success, cutoffs)]
        values = ranking_scores(metrics, hits.relevant, hits.total)
        scores |= {f"answer_recall@{k}": value for k, value in zip(cutoffs, values.values(), strict=True)}
        by_metric = ranking_ratios(metrics, hits.relevant, hits.total, answerable, len(examples))
        ratios |= {f"answer_recall@{k}": ratio for k, ratio in zip(cutoffs, by_metric.values(), strict=True)}
        example_counts["answer"] = len(answerable)
    return RetrievalScores(scores, example_counts, ratios)


def best_rows(model: RagModel, examples: Sequence[Example], k: int) -> Int[Tensor, "B _"]:
    """Return the prior's k best rows, best first, then -1 or the null passage's row; on the model's device."""
    candidates = model.retrieve(examples, k)
    passages_first = candidates.scores.log_prior.masked_fill(candidates.rows < 0, -torch.inf)
    order = passages_first.argsort(dim=-1, descending=True, stable=True)[:, :k]
    return candidates.rows.gather(1, order)


def _rank(model: RagModel, examples: Sequence[Example], cutoff: int) -> list[list[int]]:
    """Return the rows of each example's best passages, best first, without padding and the null passage."""
    ranked: list[list[int]] = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            rows = best_rows(model, examples[start : start + _BATCH], min(cutoff, len(model.base))).tolist()
            ranked += [[row for row in best if row >= 0] for best in rows]
    return ranked


def _rows_with_answer(base: KnowledgeBase, examples: Sequence[Example], ranked: list[list[int]]) -> list[list[int]]:
    """Return the ranked rows whose passages contain an answer. Only ranked passages are read: the base may be large."""
    distinct = sorted({row for rows in ranked for row in rows})
    texts = list(_read_texts(base, distinct))
    return [[distinct[position] for position in positions] for positions in answer_rows(examples, texts)]


def _read_texts(base: KnowledgeBase, rows: Sequence[int]) -> Iterator[str]:
    for start in range(0, len(rows), _PASSAGES_AT_ONCE):
        for passage in base.passages(rows[start : start + _PASSAGES_AT_ONCE]):
            yield passage.text
