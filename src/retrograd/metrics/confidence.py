r"""How far confidence can be trusted: calibration, risk against coverage, a threshold, and the precision of citations.

Of each answer two numbers are known: its confidence, p(y|x), and its correctness in [0, 1], which is 0 or 1 for exact
match and graded for token F1. The functions need nothing else. Whatever orders answers as confidence does, such as
log p(y|x), may stand in its place, but in `reliability`.

* **Calibration** (Naeini et al. 2015; Guo et al. 2017, arXiv 1706.04599): ECE = Σ_b n_b/n |mean confidence - mean
  correctness| over bins of answers. Bins are of about equal *mass* (Nguyen & O'Connor 2015, arXiv 1508.05154), because
  probabilities of whole texts crowd near 0, where bins of equal width would put nearly all into one.
* **Risk against coverage** (El-Yaniv & Wiener 2010; Geifman & El-Yaniv 2017, arXiv 1705.08500): if the most confident
  answers alone are given, coverage is their share of all examples, and risk is 1 - their mean correctness. AURC
  (Geifman et al. 2019, arXiv 1805.08206) is the mean risk over the coverages that are reached as one more answer is
  given.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from retrograd.types import UserError

__all__ = [
    "CitationPrecision",
    "CoveragePoint",
    "ReliabilityBin",
    "Threshold",
    "area_under_risk",
    "citation_precision",
    "expected_calibration_error",
    "fit_threshold",
    "reliability",
    "risk_coverage",
]

_ROUNDING = 1e-9
"""Share by which a sum of errors may exceed its limit: 0.29 · 100 is less than 29 in floating point."""


# ---- calibration -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """The answers of one bin: how many, between which confidences, their mean confidence and mean correctness."""

    count: int
    lowest: float
    highest: float
    confidence: float
    correctness: float


def reliability(
    confidence: Float[np.ndarray, " B"], correctness: Float[np.ndarray, " B"], bins: int = 10
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of the reliability table, least confident first; at most ``bins``, none of them empty.

    Answers of equal confidence are in one bin: that of the middle one of them, when all answers are cut, in order of
    confidence, into ``bins`` of equal mass. Raises `UserError` for values outside [0, 1] and for less than one bin.
    """
    if bins < 1:
        raise UserError(f"bins is {bins}; expected 1 or more")
    for name, values in (("confidence", confidence), ("correctness", correctness)):
        if not ((values >= 0) & (values <= 1)).all():
            raise UserError(f"a {name} lies outside [0, 1]; give probabilities and shares, not logarithms or percents")
    if not len(confidence):
        return ()
    level, group, count = np.unique(confidence, return_inverse=True, return_counts=True)
    middle = (np.cumsum(count) - count / 2) / len(confidence)
    number = np.minimum((middle * bins).astype(np.int64), bins - 1)[group]
    size, confidence_sum, correctness_sum = (
        np.bincount(number, weights, minlength=bins) for weights in (None, confidence, correctness)
    )
    level_number = np.minimum((middle * bins).astype(np.int64), bins - 1)
    return tuple(
        ReliabilityBin(
            count=int(size[b]),
            lowest=float(level[level_number == b].min()),
            highest=float(level[level_number == b].max()),
            confidence=float(confidence_sum[b] / size[b]),
            correctness=float(correctness_sum[b] / size[b]),
        )
        for b in np.flatnonzero(size)
    )


def expected_calibration_error(table: tuple[ReliabilityBin, ...]) -> float:
    """Return Σ_b n_b/n |mean confidence - mean correctness| of a `reliability` table. Raises `UserError` for none."""
    total = sum(one.count for one in table)
    if total == 0:
        raise UserError("no answers to compare with their confidence; expected at least one")
    return sum(one.count * abs(one.confidence - one.correctness) for one in table) / total


# ---- risk against coverage -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CoveragePoint:
    """The ``coverage`` and the ``risk`` of giving no answers but those of at least this ``confidence``."""

    confidence: float
    coverage: float
    risk: float


@dataclass(frozen=True)
class _Levels:
    """Distinct confidences, highest first, with the answers of each: how many, and the sum of their errors."""

    confidence: Float64[np.ndarray, " levels"]
    count: Int64[np.ndarray, " levels"]
    errors: Float64[np.ndarray, " levels"]

    @classmethod
    def of(
        cls,
        confidence: Float[np.ndarray, " B"],
        correctness: Float[np.ndarray, " B"],
        is_answer: Bool[np.ndarray, " B"],
    ) -> _Levels:
        if np.isnan(confidence).any() or np.isnan(correctness).any():
            raise UserError("a confidence or a correctness is not a number; expected one of each for every answer")
        given = confidence[is_answer].astype(np.float64)
        level, group, count = np.unique(-given, return_inverse=True, return_counts=True)
        errors = np.bincount(group, 1.0 - correctness[is_answer], minlength=len(level))
        return cls(-level, count.astype(np.int64), errors.astype(np.float64))


def risk_coverage(
    confidence: Float[np.ndarray, " B"], correctness: Float[np.ndarray, " B"], is_answer: Bool[np.ndarray, " B"]
) -> tuple[CoveragePoint, ...]:
    """Return the curve of risk against coverage, one point for each distinct confidence, the highest first.

    An example whose answer is that there is none (``is_answer`` false) is never covered; it counts among all examples.
    """
    levels = _Levels.of(confidence, correctness, is_answer)
    answers, errors = np.cumsum(levels.count), np.cumsum(levels.errors)
    coverage, risk = answers / max(len(confidence), 1), errors / answers
    return tuple(
        CoveragePoint(*point)
        for point in zip(levels.confidence.tolist(), coverage.tolist(), risk.tolist(), strict=True)
    )


def area_under_risk(
    confidence: Float[np.ndarray, " B"], correctness: Float[np.ndarray, " B"], is_answer: Bool[np.ndarray, " B"]
) -> float | None:
    """Return AURC, 1/m Σ_{k≤m} (risk of the k most confident of m answers); None where there is no answer.

    Answers of equal confidence come in random order, and the value is its expectation. It equals the risk of all
    answers where confidence says nothing, and lies below it where confident answers are right more often.
    """
    levels = _Levels.of(confidence, correctness, is_answer)
    if not len(levels.count):
        return None
    errors = np.repeat(levels.errors / levels.count, levels.count)
    return float((np.cumsum(errors) / np.arange(1, len(errors) + 1)).mean())


# ---- a threshold -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Threshold:
    """Answers below ``confidence`` are withheld; ``coverage`` and ``risk`` are those of the data it was fitted on.

    ``confidence`` is -inf where nothing is withheld, and inf where everything is.
    """

    confidence: float
    coverage: float
    risk: float


def fit_threshold(
    confidence: Float[np.ndarray, " B"],
    correctness: Float[np.ndarray, " B"],
    is_answer: Bool[np.ndarray, " B"],
    largest_risk: float,
) -> Threshold:
    """Return the threshold with the largest coverage whose risk is at most ``largest_risk``.

    All thresholds are compared. The one that is returned lies halfway between the confidences of the last answer that
    is given and of the first that is withheld. Nothing has a risk of 0: where no other coverage will do, all answers
    are withheld. Raises `UserError` for a risk outside [0, 1].
    """
    if not 0 <= largest_risk <= 1:
        raise UserError(f"the largest risk is {largest_risk}; expected a share of wrong answers, from 0 to 1")
    levels = _Levels.of(confidence, correctness, is_answer)
    answers, errors = np.cumsum(levels.count), np.cumsum(levels.errors)
    permitted = np.flatnonzero(errors <= largest_risk * answers + _ROUNDING * answers)
    if not len(permitted):
        return Threshold(math.inf, 0.0, 0.0)
    last = int(permitted[-1])
    below = float(levels.confidence[last + 1]) if last + 1 < len(levels.confidence) else None
    risk = float(errors[last] / answers[last])
    return Threshold(_between(below, float(levels.confidence[last])), float(answers[last] / len(confidence)), risk)


def _between(below: float | None, above: float) -> float:
    """Return a number in (below, above], their middle where there is one; -inf where nothing is below."""
    if below is None:
        return -math.inf
    middle = below + (above - below) / 2
    return middle if below < middle <= above else above


# ---- citations -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CitationPrecision:
    """Shares in [0, 1] over ``examples``: how often the passage cited first is a gold one, with what to compare.

    ``prior`` is the same for the passage that comes first by p(z|x), before there was an answer; ``chance`` is the
    expectation of a passage drawn blindly from those that were read.
    """

    examples: int
    precision: float
    prior: float
    chance: float


def citation_precision(
    weight: Float[np.ndarray, "B K"],
    prior: Float[np.ndarray, "B K"],
    is_gold: Bool[np.ndarray, "B K"],
    is_read: Bool[np.ndarray, "B K"],
) -> CitationPrecision | None:
    """Return how often the first citation is right; None without an example that read any passage.

    ``weight`` is p(z|x,y), ``prior`` is p(z|x), of the passages that ``is_read`` marks. Of passages that come first
    together one is drawn, and the value is its expectation.
    """
    is_counted = is_read.any(axis=1)
    if not is_counted.any():
        return None
    gold, read = (is_gold & is_read)[is_counted], is_read[is_counted]
    shares = (_share_of_first(values[is_counted], gold, read) for values in (weight, prior))
    precision, prior_precision = (float(share.mean()) for share in shares)
    chance = float((gold.sum(axis=1) / read.sum(axis=1)).mean())
    return CitationPrecision(int(is_counted.sum()), precision, prior_precision, chance)


def _share_of_first(
    values: Float[np.ndarray, "B K"], gold: Bool[np.ndarray, "B K"], read: Bool[np.ndarray, "B K"]
) -> Float64[np.ndarray, " B"]:
    """Return the share of gold passages among those with the largest value, which is mostly one."""
    masked = np.where(read, values, -np.inf)
    first = read & (masked == masked.max(axis=1, keepdims=True))
    return (first & gold).sum(axis=1) / first.sum(axis=1)
