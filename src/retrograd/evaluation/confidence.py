"""Measure what a model's confidence is worth: calibration, and risk against coverage.

Confidence is p(y|x) of the answer that the model gave (`retrograd.types.Prediction`). Answers that were withheld count
as what they were before, so that nothing here but coverage and risk depends on a threshold.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
from jaxtyping import Bool

from retrograd.metrics.confidence import (
    CoveragePoint,
    ReliabilityBin,
    area_under_risk,
    expected_calibration_error,
    reliability,
    risk_coverage,
)
from retrograd.metrics.significance import Ratio
from retrograd.tasks.judging import Judgements, judge_answers
from retrograd.tasks.task import Task
from retrograd.types import ConfidenceKind, Example, Prediction
from retrograd.util.guards import JsonObject

__all__ = ["Confidence", "confidence_ratios", "judge_own_answers", "measure_confidence"]

_BINS = 10
_POINTS = 101


@dataclass(frozen=True)
class Confidence:
    """The confidence of answers beside their correctness by ``metric``; all shares lie in [0, 1].

    ``kind`` says what the probability is one of. ``bins`` are the reliability table, of equal mass, whose ECE is
    ``calibration_error``. ``curve`` is risk against coverage over all thresholds, at most 101 points of it, and
    ``area`` the area under all of it (AURC). ``coverage`` is the share of the examples that were given an answer other
    than "cannot answer", and ``risk`` how wrong these answers are: 1 - their mean correctness; None without any.
    """

    metric: str
    kind: ConfidenceKind
    examples: int
    calibration_error: float
    area: float | None
    coverage: float
    risk: float | None
    bins: tuple[ReliabilityBin, ...]
    curve: tuple[CoveragePoint, ...]

    def scores(self) -> dict[str, float]:
        """Return the numbers that sum it up, in percent, by name; none that do not exist."""
        values = {"ece": self.calibration_error, "aurc": self.area, "coverage": self.coverage, "risk": self.risk}
        return {name: 100.0 * value for name, value in values.items() if value is not None}

    def record(self) -> JsonObject:
        """Return all of it as JSON."""
        return {
            "correctness": self.metric,
            "confidence": f"probability {self.kind}",
            "examples": self.examples,
            "ece": self.calibration_error,
            "aurc": self.area,
            "coverage": self.coverage,
            "risk": self.risk,
            "reliability": [asdict(one) for one in self.bins],
            "risk_coverage": [asdict(point) for point in self.curve],
        }


def judge_own_answers(task: Task, examples: Sequence[Example], predictions: Sequence[Prediction]) -> Judgements:
    """Judge the model's own answers, those that were withheld included. Raises `UserError` as `judge_answers` does."""
    return judge_answers(task, examples, [prediction.own_answer for prediction in predictions])


def measure_confidence(judged: Judgements, predictions: Sequence[Prediction]) -> Confidence:
    """Compare the confidence of predictions, of which there is at least one, with what was judged of them."""
    log_probability = np.array([prediction.log_probability for prediction in predictions])
    correctness, is_answer = np.array(judged.correctness), np.array(judged.is_answer)
    bins = reliability(np.minimum(np.exp(log_probability), 1.0), correctness, _BINS)
    # Logarithms give the order, as probabilities of long texts may be too small for a number.
    curve = _thin(risk_coverage(log_probability, correctness, is_answer))
    is_given = _are_given(judged, predictions)
    return Confidence(
        metric=judged.metric,
        kind=predictions[0].confidence_kind,
        examples=len(predictions),
        calibration_error=expected_calibration_error(bins),
        area=area_under_risk(log_probability, correctness, is_answer),
        coverage=float(is_given.mean()),
        risk=float(1.0 - correctness[is_given].mean()) if is_given.any() else None,
        bins=bins,
        curve=tuple(replace(point, confidence=min(1.0, math.exp(point.confidence))) for point in curve),
    )


def confidence_ratios(judged: Judgements, predictions: Sequence[Prediction]) -> dict[str, Ratio]:
    """Return coverage and risk as ratios over the examples, to be resampled; the other scores are none."""
    is_given = _are_given(judged, predictions)
    errors = np.where(is_given, 1.0 - np.array(judged.correctness), 0.0)
    return {"coverage": Ratio.of(is_given), "risk": Ratio.of(errors, is_given)}


def _are_given(judged: Judgements, predictions: Sequence[Prediction]) -> Bool[np.ndarray, " B"]:
    """Return which examples were given an answer other than that there is none."""
    return np.array(judged.is_answer) & np.array([prediction.withheld is None for prediction in predictions])


def _thin(curve: tuple[CoveragePoint, ...]) -> tuple[CoveragePoint, ...]:
    """Return at most `_POINTS` points of a curve, evenly spread, its first and last among them."""
    kept = np.unique(np.linspace(0, len(curve) - 1, min(len(curve), _POINTS)).round().astype(int)) if curve else ()
    return tuple(curve[place] for place in kept)
