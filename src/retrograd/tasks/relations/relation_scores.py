"""Scores of the labels that answers name: official F1, and the rates of answers that need a second look."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from retrograd.metrics.relations import RelationTable, relation_table, semeval_score
from retrograd.tasks.relations.refinement import Refined

__all__ = ["METRICS", "find_unseen", "official_table", "score_relations"]

METRICS = ("semeval", "macro", "micro")
"""``semeval``: the official macro-F1 over nine directed relations; ``macro`` and ``micro``: F1 without the negative."""


def score_relations(
    gold: Sequence[str], readings: Sequence[Refined], metric: str, negative: str | None, labels: Collection[str]
) -> dict[str, float]:
    """Return the scores of answers in percent: those of one of `METRICS`, and rates over all of them.

    The rates are of answers that name no label, that name one only by the rules of refinement, and that name the
    negative label. An answer without a label is skipped by F1: a miss, and a false alarm for nobody. ``accuracy`` is
    over all items. A gold label that is not among the ``labels`` is a relation that is always missed.
    """
    predicted = [reading.label for reading in readings]
    table = official_table(metric, gold, predicted, negative, labels)
    right = sum(label == guess for label, guess in zip(gold, predicted, strict=True))
    refined = sum(reading.label is not None and not reading.is_exact for reading in readings)
    negatives = 0 if negative is None else predicted.count(negative)
    return {
        "macro_f1": table.macro.f1,
        "micro_f1": table.micro.f1,
        "micro_precision": table.micro.precision,
        "micro_recall": table.micro.recall,
        "accuracy": 100.0 * right / len(gold),
        "invalid_rate": 100.0 * predicted.count(None) / len(gold),
        "refined_rate": 100.0 * refined / len(gold),
        "negative_rate": 100.0 * negatives / len(gold),
    }


def official_table(
    metric: str, gold: Sequence[str], predicted: Sequence[str | None], negative: str | None, labels: Collection[str]
) -> RelationTable:
    """Return the scores by relation, as the official scorer of one of `METRICS` counts; of SemEval the nine relations,
    with direction.

    A gold label that is not among the ``labels`` is a relation that is always missed.
    """
    unseen = find_unseen(gold, labels)
    if metric == "semeval":
        return semeval_score(gold, predicted, unseen).official.table
    return relation_table(gold, predicted, negative, (*labels, *unseen))


def find_unseen(gold: Sequence[str], labels: Collection[str]) -> tuple[str, ...]:
    """Return the gold labels that are not among the ``labels`` of a task, each once, in their order."""
    return tuple(label for label in dict.fromkeys(gold) if label not in labels)
