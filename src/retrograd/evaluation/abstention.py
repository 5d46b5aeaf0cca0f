"""Fit the threshold of "cannot answer" on development data: the largest coverage at a risk that is permitted.

One rule suits data with and without questions that cannot be answered. Risk is how wrong the given answers are, 1 less
their mean correctness, and any answer to a question that has none is wrong; so such questions raise the threshold by
themselves. Where the model says itself that there is no answer, none was given.

The risk that was reached is of the examples that the threshold was fitted on, the best of many thresholds, so it
flatters a little.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrograd.evaluation.confidence import judge_own_answers
from retrograd.evaluation.evaluate import predict
from retrograd.metrics.confidence import fit_threshold
from retrograd.models.settings import Scoring
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject

__all__ = ["ABOVE_ALL", "Abstention", "fit_abstention"]

ABOVE_ALL = 1.0
"""A threshold in nats that no log-probability reaches, so that all answers are withheld."""


@dataclass(frozen=True)
class Abstention:
    """A fitted threshold ``abstain_below`` of log p(y|x), in nats; None withholds nothing.

    ``risk`` and ``coverage`` are those of the development data with it, ``risk_before`` and ``coverage_before`` those
    without, in percent; ``risk_before`` is None where the model says of every example that there is no answer. The
    threshold belongs to ``passages`` and ``scoring``, with which the model answered.
    """

    abstain_below: float | None
    largest_risk: float
    metric: str
    risk: float
    coverage: float
    risk_before: float | None
    coverage_before: float
    examples: int
    passages: int
    scoring: Scoring

    @property
    def withholds_all(self) -> bool:
        """True where no threshold keeps the risk, so that no answer is given."""
        return self.abstain_below is not None and self.abstain_below >= ABOVE_ALL

    @property
    def probability(self) -> float:
        """Return the threshold as a probability in [0, 1]."""
        return 0.0 if self.abstain_below is None else min(1.0, math.exp(self.abstain_below))

    def record(self) -> JsonObject:
        """Return the threshold and how it was fitted as JSON."""
        return {
            "abstain_below": self.abstain_below,
            "probability": self.probability,
            "largest_risk": self.largest_risk,
            "correctness": self.metric,
            "risk": self.risk,
            "coverage": self.coverage,
            "risk_before": self.risk_before,
            "coverage_before": self.coverage_before,
            "examples": self.examples,
            "passages": self.passages,
            "scoring": self.scoring,
        }


def fit_abstention(
    model: RagModel, examples: Sequence[Example], k: int, scoring: Scoring, largest_risk: float
) -> Abstention:
    """Fit the threshold with the largest coverage of ``examples`` whose risk is at most ``largest_risk``, in [0, 1].

    The model should have been trained on none of them; its own threshold does not matter, and is left as it is. Raises
    `UserError` without examples, and for one without a target.
    """
    if not examples:
        raise UserError(
            'a threshold cannot be fitted on 0 examples; give development data, or set evaluation.abstain = "never"'
        )
    predictions = predict(model, examples, k, scoring)
    judged = judge_own_answers(model.task, examples, predictions)
    log_probability = np.array([prediction.log_probability for prediction in predictions])
    correctness, is_answer = np.array(judged.correctness), np.array(judged.is_answer)
    fitted = fit_threshold(log_probability, correctness, is_answer, largest_risk)
    return Abstention(
        abstain_below=None if fitted.confidence == -math.inf else min(fitted.confidence, ABOVE_ALL),
        largest_risk=largest_risk,
        metric=judged.metric,
        risk=100.0 * fitted.risk,
        coverage=100.0 * fitted.coverage,
        risk_before=100.0 * float(1.0 - correctness[is_answer].mean()) if is_answer.any() else None,
        coverage_before=100.0 * float(is_answer.mean()),
        examples=len(examples),
        passages=k,
        scoring=scoring,
    )
