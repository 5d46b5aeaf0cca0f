"""Scores of the labels that answers name: official F1, and the rates of answers that need a second look."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from retrograd.metrics.relations import relation_table, semeval_score
from retrograd.tasks.relations.refinement import Refined

__all__ = ["METRICS", "score_relations"]

METRICS = ("semeval", "macro", "micro")
"""``semeval``: the official macro-F1 over nine directed relations; ``macro`` and ``micro``: F1 without the negative."""


def score_relations(
    gold: Sequence[str], readings: Sequence[Refined], metric: str, negative: str | None, labels: Collection[str]
) -> dict[str, float]:
    """Return the scores of answers in percent: those of one of `METRICS`, and rates over all of them.

    The rates are of answers that name no label, that name one only by the rules of refinement, and that name the
    negative label. An answer without a label is skipped by F1: a miss, and a false alarm for nobody. ``accuracy`` is
    over all items.
    """
    predicted = [reading.label for reading in readings]
    if metric == "semeval":
        table = semeval_score(gold, predicted).official.table
    else:
        table = relation_table(gold, predicted, negative, labels)
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
