"""Does the prior find what answers? Scores of its ranking for tasks of open answers, over the whole base.

Two notions of relevance, which `retrograd.tasks.relevance` tells apart: the passages that somebody marked as gold, and
those that hold an answer word for word (for short answers: a sentence seldom stands in a passage as it is).

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

from retrograd.data.grounded_example import gold_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.metrics.ranking import MRR, NDCG, RankingMetric, Recall, Success, ranking_scores, relevance
from retrograd.models.compute.inference import inference
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.relevance import answer_rows, gold_rows, rows_by_id
from retrograd.tasks.task import Task
from retrograd.tasks.text_index import TextIndex
from retrograd.types import Example

__all__ = ["RetrievalScores", "best_rows", "open_retrieval_scores"]

CUTOFFS = (1, 5, 10, 20)
"""Recall is looked at here; cut-offs above the size of the base are left out."""
_BATCH = 64
_PASSAGES_AT_ONCE = 8_192


@dataclass(frozen=True)
class RetrievalScores:
    """Means in percent by name; ``judged`` is over how many examples, for "gold" and "answer"."""

    scores: dict[str, float]
    judged: dict[str, int]


def open_retrieval_scores(model: RagModel, examples: Sequence[Example]) -> RetrievalScores:
    """One search per example that can be judged, at the largest cut-off.

    Where any example has gold passages the ids of the base are read once. Raises `UserError` for gold passages that are
    not in the base.
    """
    cutoffs = [k for k in CUTOFFS if k <= max(1, len(model.base))]
    marked = [bool(gold_passages(one)) for one in examples]
    answered = [_answerable(model.task, one) for one in examples]
    asked = [b for b in range(len(examples)) if marked[b] or answered[b]]
    ranked = dict(zip(asked, _ranked(model, [examples[b] for b in asked], max(cutoffs)), strict=True))
    scores: dict[str, float] = {}
    judged: dict[str, int] = {}
    gold = [b for b in asked if marked[b]]
    if gold:
        wanted = gold_rows([examples[b] for b in gold], rows_by_id(model.base))
        metrics: list[RankingMetric] = [*map(Recall, cutoffs), MRR(10), NDCG(10)]
        found = relevance([ranked[b] for b in gold], wanted)
        values = ranking_scores(metrics, found.relevant, found.total)
        scores |= {f"gold_{name}": value for name, value in values.items()}
        judged["gold"] = len(gold)
    own = [b for b in asked if answered[b]]
    if own:
        rows = [ranked[b] for b in own]
        found = relevance(rows, _holding(model.base, [examples[b] for b in own], rows))
        values = ranking_scores([*map(Success, cutoffs)], found.relevant, found.total)
        scores |= {f"answer_recall@{k}": value for k, value in zip(cutoffs, values.values(), strict=True)}
        judged["answer"] = len(own)
    return RetrievalScores(scores, judged)


def best_rows(model: RagModel, examples: Sequence[Example], k: int) -> Int[Tensor, "B _"]:
    """Rows of the prior's k best passages, best first, then -1 or the null passage's row; on the model's device."""
    candidates = model.retrieve(examples, k)
    passages_first = candidates.scores.log_prior.masked_fill(candidates.rows < 0, -torch.inf)
    order = passages_first.argsort(dim=-1, descending=True, stable=True)[:, :k]
    return candidates.rows.gather(1, order)


def _ranked(model: RagModel, examples: Sequence[Example], most: int) -> list[list[int]]:
    """Rows of passages alone, best first."""
    found: list[list[int]] = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            rows = best_rows(model, examples[start : start + _BATCH], min(most, len(model.base))).tolist()
            found += [[row for row in own if row >= 0] for own in rows]
    return found


def _answerable(task: Task, example: Example) -> bool:
    return bool(example.targets) and example.target != task.negative_for(example)


def _holding(base: KnowledgeBase, examples: Sequence[Example], ranked: list[list[int]]) -> list[list[int]]:
    """Of the retrieved rows those that hold an answer. Only what was retrieved is read, so the base may be large."""
    distinct = sorted({row for own in ranked for row in own})
    index = TextIndex(_texts(base, distinct))
    return [[distinct[place] for place in own] for own in answer_rows(examples, index)]


def _texts(base: KnowledgeBase, rows: Sequence[int]) -> Iterator[str]:
    for start in range(0, len(rows), _PASSAGES_AT_ONCE):
        for passage in base.passages(rows[start : start + _PASSAGES_AT_ONCE]):
            yield passage.text
