"""Compare calibration, risk against coverage, the fitted threshold and the precision of citations with enumeration."""

from __future__ import annotations

import math
from dataclasses import astuple
from itertools import pairwise, permutations
from statistics import fmean

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import Bool, Float64

from retrograd.metrics.confidence import (
    CitationPrecision,
    CoveragePoint,
    area_under_risk,
    citation_precision,
    expected_calibration_error,
    fit_threshold,
    reliability,
    risk_coverage,
)
from retrograd.types import UserError

Answers = tuple[Float64[np.ndarray, " B"], Float64[np.ndarray, " B"], Bool[np.ndarray, " B"]]

few = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # exact in binary, and often equal
answers = st.lists(st.tuples(few, few, st.booleans()), min_size=1, max_size=7)


def arrays(rows: list[tuple[float, float, bool]]) -> Answers:
    confidence, correctness, is_answer = zip(*rows, strict=True)
    return np.array(confidence), np.array(correctness), np.array(is_answer)


# ---- calibration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [1, 3, 10, 50])
def test_answers_that_are_right_as_often_as_they_say_have_no_calibration_error(bins: int) -> None:
    """Of 20 answers with confidence n/20 exactly n are right; each confidence has a bin to itself, or shares one."""
    levels = [n / 20 for n in (1, 4, 7, 10, 13, 16, 19)]
    confidence = np.repeat(levels, 20)
    correctness = np.concatenate([np.arange(20) < round(20 * level) for level in levels]).astype(float)
    mixed = np.random.default_rng(0).permutation(len(confidence))
    table = reliability(confidence[mixed], correctness[mixed], bins)
    assert len(table) == min(bins, len(levels))
    # Sums of 140 numbers in [0, 1] are right to 140 roundings of at most 140 · 2**-53.
    assert expected_calibration_error(table) <= 140 * 2.0**-53


def test_the_table_and_its_error_by_hand() -> None:
    confidence, correctness = np.array([0.9, 0.1, 0.8, 0.2]), np.array([1.0, 0.5, 0.0, 0.0])
    table = reliability(confidence, correctness, bins=2)
    by_hand = [(2, 0.1, 0.2, 0.15, 0.25), (2, 0.8, 0.9, 0.85, 0.5)]
    assert [astuple(one) for one in table] == [pytest.approx(one) for one in by_hand]
    assert expected_calibration_error(table) == pytest.approx(0.5 * 0.1 + 0.5 * 0.35)


def test_equal_confidences_are_in_one_bin_in_whatever_order() -> None:
    """Cut apart, 10 equal confidences of which 7 answers are right would seem to be calibrated badly."""
    correctness = np.array([1.0] * 7 + [0.0] * 3)
    for order in (np.arange(10), np.arange(10)[::-1]):
        table = reliability(np.full(10, 0.7), correctness[order], bins=5)
        assert len(table) == 1
        assert expected_calibration_error(table) == pytest.approx(0.0, abs=1e-15)


@given(answers, st.integers(1, 12))
def test_every_answer_is_in_one_bin_and_bins_do_not_overlap(rows: list[tuple[float, float, bool]], bins: int) -> None:
    confidence, correctness, _ = arrays(rows)
    table = reliability(confidence, correctness, bins)
    assert len(table) <= bins
    assert sum(one.count for one in table) == len(rows)
    assert all(one.highest < other.lowest for one, other in pairwise(table))
    for one in table:
        inside = (confidence >= one.lowest) & (confidence <= one.highest)
        assert one.count == inside.sum()
        assert one.confidence == pytest.approx(confidence[inside].mean())
        assert one.correctness == pytest.approx(correctness[inside].mean())


def test_bins_are_of_equal_mass_where_confidences_differ() -> None:
    table = reliability(np.geomspace(1e-30, 1.0, 100), np.zeros(100), bins=10)
    assert [one.count for one in table] == [10] * 10


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(UserError, match="confidence lies outside"):
        reliability(np.array([-1.0]), np.array([1.0]))
    with pytest.raises(UserError, match="correctness lies outside"):
        reliability(np.array([1.0]), np.array([100.0]))
    with pytest.raises(UserError, match="confidence lies outside"):
        reliability(np.array([math.nan]), np.array([1.0]))
    with pytest.raises(UserError, match="bins is 0"):
        reliability(np.array([1.0]), np.array([1.0]), 0)
    with pytest.raises(UserError, match="at least one"):
        expected_calibration_error(())


# ---- risk against coverage -------------------------------------------------------------------------------------------


def test_the_curve_of_a_known_order() -> None:
    confidence, correctness = np.array([-3.0, -1.0, -2.0, -9.0]), np.array([0.0, 1.0, 0.5, 1.0])
    is_answer = np.array([True, True, True, False])
    assert risk_coverage(confidence, correctness, is_answer) == (
        CoveragePoint(-1.0, 0.25, 0.0),
        CoveragePoint(-2.0, 0.5, 0.25),
        CoveragePoint(-3.0, 0.75, 0.5),
    )
    assert area_under_risk(confidence, correctness, is_answer) == pytest.approx((0 + 0.25 + 0.5) / 3)


def enumerate_area(rows: list[tuple[float, float, bool]]) -> float:
    """Average the mean risk over every order of the answers in which confidence does not rise."""
    given_answers = [(confidence, correctness) for confidence, correctness, is_answer in rows if is_answer]
    areas = []
    for order in permutations(given_answers):
        if all(one[0] >= other[0] for one, other in pairwise(order)):
            risks = [1 - fmean(correctness for _, correctness in order[: k + 1]) for k in range(len(order))]
            areas.append(fmean(risks))
    return fmean(areas)


@given(answers)
def test_the_area_is_that_of_all_orders(rows: list[tuple[float, float, bool]]) -> None:
    area = area_under_risk(*arrays(rows))
    if not any(is_answer for *_, is_answer in rows):
        assert area is None
        return
    assert area == pytest.approx(enumerate_area(rows))


def test_the_area_is_the_risk_where_confidence_says_nothing() -> None:
    correctness = np.array([1.0, 0.0, 0.0, 1.0, 1.0])
    assert area_under_risk(np.full(5, 0.3), correctness, np.full(5, True)) == pytest.approx(0.4)


# ---- the threshold ---------------------------------------------------------------------------------------------------


def outcome(
    rows: list[tuple[float, float, bool]], threshold: float
) -> tuple[float, float]:  # coverage and risk, 0 of nothing
    kept = [correctness for confidence, correctness, is_answer in rows if is_answer and confidence >= threshold]
    return len(kept) / len(rows), 1 - fmean(kept) if kept else 0.0


@given(answers, st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.75, 1.0]))
def test_the_threshold_is_the_best_of_all(rows: list[tuple[float, float, bool]], largest: float) -> None:
    fitted = fit_threshold(*arrays(rows), largest)
    every = [-math.inf, *(confidence for confidence, *_ in rows), math.inf]
    # A risk may exceed the limit by rounding alone: the values are quarters, whose means differ by more than 1e-3.
    permitted = [one for one in (outcome(rows, threshold) for threshold in every) if one[1] <= largest + 1e-9]
    assert (fitted.coverage, fitted.risk) == pytest.approx(outcome(rows, fitted.confidence))
    assert fitted.coverage == pytest.approx(max(coverage for coverage, _ in permitted))
    assert fitted.risk <= largest + 1e-9


def test_the_threshold_lies_between_two_answers() -> None:
    confidence, correctness, all_ = np.array([-1.0, -2.0, -4.0]), np.array([1.0, 1.0, 0.0]), np.full(3, True)
    assert fit_threshold(confidence, correctness, all_, 0.0).confidence == -3.0
    assert fit_threshold(confidence, correctness, all_, 0.5).confidence == -math.inf
    assert fit_threshold(confidence, np.zeros(3), all_, 0.5).confidence == math.inf
    close = np.array([1.0, np.nextafter(1.0, 2.0)])
    assert fit_threshold(close, np.array([0.0, 1.0]), np.full(2, True), 0.0).confidence == close[1]


def test_an_unlikely_answer_that_has_no_finite_logarithm_is_withheld() -> None:
    confidence, correctness = np.array([-1.0, -math.inf]), np.array([1.0, 0.0])
    assert fit_threshold(confidence, correctness, np.full(2, True), 0.0).confidence == -1.0


def test_a_risk_is_kept_that_floating_point_would_miss() -> None:
    """0.29 · 100 is 28.999…96, and 29 of 100 answers are wrong."""
    correctness = np.array([1.0] * 71 + [0.0] * 29)
    assert fit_threshold(np.linspace(1, 0, 100), correctness, np.full(100, True), 0.29).coverage == 1.0


def test_impossible_risks_are_refused() -> None:
    for risk in (-0.1, 1.1, math.nan):
        with pytest.raises(UserError, match="largest risk"):
            fit_threshold(np.array([0.5]), np.array([1.0]), np.array([True]), risk)
    with pytest.raises(UserError, match="not a number"):
        fit_threshold(np.array([math.nan]), np.array([1.0]), np.array([True]), 0.5)


# ---- citations -------------------------------------------------------------------------------------------------------


def test_citations_by_hand() -> None:
    weight = np.array([[0.7, 0.3, 0.0], [0.2, 0.8, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 0.0]])
    prior = np.array([[0.4, 0.6, 0.0], [0.1, 0.9, 0.0], [0.9, 0.1, 0.0], [0.0, 0.0, 0.0]])
    is_gold = np.array([[True, False, True], [True, False, False], [True, False, False], [False, False, False]])
    is_read = np.array([[True, True, False], [True, True, False], [True, True, False], [False, False, False]])
    # The third example cites two passages alike, of which one is gold; the fourth reads none.
    assert citation_precision(weight, prior, is_gold, is_read) == CitationPrecision(3, 0.5, 1 / 3, 0.5)
    assert citation_precision(weight[3:], prior[3:], is_gold[3:], is_read[3:]) is None


def test_a_passage_that_is_not_read_is_never_first() -> None:
    one = citation_precision(
        np.array([[0.0, 0.0]]), np.array([[0.0, 0.0]]), np.array([[False, True]]), np.array([[True, False]])
    )
    assert one == CitationPrecision(1, 0.0, 0.0, 0.0)
