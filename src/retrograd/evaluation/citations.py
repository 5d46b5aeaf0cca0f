"""Compare what answers cite, p(z|x,y), with gold passages: how often the first citation is one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from retrograd.metrics.confidence import CitationPrecision, citation_precision
from retrograd.types import Prediction

__all__ = ["citation_scores", "score_citations"]


def score_citations(
    predictions: Sequence[Prediction], is_answer: Sequence[bool], gold: Sequence[Sequence[int]]
) -> CitationPrecision | None:
    """Return the precision of the first citation over the examples that have gold passages and were given an answer.

    ``gold`` are the rows of each example's gold passages, none where nothing is marked; ``is_answer`` is false for an
    answer that says that there is none. The value is None where no example counts, and where the weights of passages
    are not p(z|x,y).
    """
    counted = [
        (prediction, set(rows))
        for prediction, answers, rows in zip(predictions, is_answer, gold, strict=True)
        if answers and rows and prediction.withheld is None and prediction.has_posterior_weights
    ]
    width = max((len(prediction.rows) for prediction, _ in counted), default=0)
    weight, prior = np.zeros((len(counted), width)), np.zeros((len(counted), width))
    is_gold, is_read = np.zeros(weight.shape, dtype=bool), np.zeros(weight.shape, dtype=bool)
    for b, (prediction, rows) in enumerate(counted):
        size = len(prediction.rows)
        weight[b, :size], prior[b, :size], is_read[b, :size] = prediction.weights, prediction.prior_weights, True
        is_gold[b, :size] = [row in rows for row in prediction.rows]
    return citation_precision(weight, prior, is_gold, is_read) if width else None


def citation_scores(precision: CitationPrecision | None) -> dict[str, float]:
    """Return the scores in percent, by name; none where there is no precision."""
    if precision is None:
        return {}
    return {
        "citation_precision@1": 100.0 * precision.precision,
        "citation_prior_precision@1": 100.0 * precision.prior,
        "citation_chance": 100.0 * precision.chance,
    }
