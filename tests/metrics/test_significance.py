from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.metrics.relations import semeval_score
from retrograd.metrics.resampling import semeval_resampler
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    bootstrap_corpus,
    paired_bootstrap,
    paired_bootstrap_corpus,
    paired_permutation,
    paired_permutation_corpus,
)
from retrograd.types import UserError

# Standard errors a stochastic check may be off: one false alarm in about 150,000 checks, and the seeds are fixed.
SIGMAS = 4.5


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def mean_of(baseline: np.ndarray, system: np.ndarray) -> Callable[[np.ndarray], float]:
    both = np.concatenate([baseline, system])
    return lambda rows: float(both[rows].mean())


def test_the_interval_of_one_score_equals_enumeration():
    scores = np.array([0.0, 1.0, 3.0])
    every = [np.mean(draw) for draw in product(scores, repeat=3)]
    found = bootstrap_corpus(lambda rows: float(scores[rows].mean()), 3, rng(), 10_000, confidence=0.8)
    assert found.score == pytest.approx(4 / 3)
    assert [found.low, found.high] == pytest.approx(np.quantile(every, [0.1, 0.9], method="inverted_cdf"))
    assert (found.items, found.resamples, found.confidence) == (3, 10_000, 0.8)
    with pytest.raises(UserError, match="a bootstrap of 1 items"):
        bootstrap_corpus(lambda rows: 0.0, 1, rng())


def test_bootstrap_quantiles_equal_enumeration():
    # All 27 draws of three gains: the 10 % and 90 % points lie well inside an atom (its share's nearest edge is 0.048
    # away, 16 standard errors at 10,000 resamples), so the percentiles are exact.
    gain = np.array([0.0, 1.0, 3.0])
    every = [np.mean(draw) for draw in product(gain, repeat=3)]
    found = paired_bootstrap(np.zeros(3), gain, rng(), confidence=0.8)
    assert found.difference == pytest.approx(4 / 3)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(every, [0.1, 0.9])))


def test_bootstrap_interval_matches_the_normal_law():
    # Symmetric ±1 gains, n = 2,500: the mean of a resample is normal to O(1/n) with the population's s / √n.
    gain = np.repeat([1.0, -1.0], [1250, 1250])
    resamples, standard_error = 10_000, 1 / np.sqrt(2_500)
    found = paired_bootstrap(np.zeros(2_500), gain, rng(1), resamples)
    density = np.exp(-(1.96**2) / 2) / np.sqrt(2 * np.pi)
    quantile_error = np.sqrt(0.025 * 0.975 / resamples) / density * standard_error
    atom = 2 / 2_500  # the mean moves in steps of two gains
    tolerance = SIGMAS * quantile_error + atom
    assert tolerance < 0.2 * standard_error
    assert found.low == pytest.approx(-1.96 * standard_error, abs=tolerance)
    assert found.high == pytest.approx(1.96 * standard_error, abs=tolerance)
    assert not found.excludes_zero


def test_permutation_p_equals_enumeration():
    gain = np.array([0.5, -0.2, 0.9, 0.1, 0.0, 0.4, -0.3, 0.7])
    every = [abs(np.mean(np.array(signs) * gain)) for signs in product([1, -1], repeat=8)]
    exact = float(np.mean(np.array(every) >= abs(gain.mean()) - 1e-12))
    resamples = 20_000
    found = paired_permutation(np.zeros(8), gain, rng(2), resamples)
    assert found.difference == pytest.approx(gain.mean())
    tolerance = SIGMAS * np.sqrt(exact * (1 - exact) / resamples) + 1 / resamples
    assert 0.05 < exact < 0.2
    assert found.p_value == pytest.approx(exact, abs=tolerance)


def test_permutation_p_is_uniform_when_nothing_differs():
    trials, level = 600, 0.1
    source = rng(3)
    small = [
        paired_permutation(source.random(12), source.random(12), source, resamples=199).p_value <= level
        for _ in range(trials)
    ]
    tolerance = SIGMAS * np.sqrt(level * (1 - level) / trials)
    assert np.mean(small) == pytest.approx(level, abs=tolerance)


def test_bootstrap_covers_the_true_difference_as_often_as_it_says():
    trials, items, confidence = 400, 100, 0.9
    source = rng(4)
    covered = 0
    for _ in range(trials):
        baseline = source.random(items)
        found = paired_bootstrap(baseline, baseline + source.normal(0.3, 1.0, items), source, 400, confidence)
        covered += found.low <= 0.3 <= found.high
    # The percentile interval is about √(1 - 1/n) too short and its end points are themselves noisy: 1.5 % is granted.
    tolerance = SIGMAS * np.sqrt(confidence * (1 - confidence) / trials) + 0.015
    assert covered / trials == pytest.approx(confidence, abs=tolerance)


def test_ties_count_as_hits_however_they_are_summed():
    # With equal gains every swap but the two one-sided ones is smaller: p = 2 / 2**4, though 0.1 sums inexactly.
    found = paired_permutation([0.0] * 4, [0.1] * 4, rng(5), 20_000)
    assert found.p_value == pytest.approx(0.125, abs=SIGMAS * np.sqrt(0.125 * 0.875 / 20_000))
    assert paired_permutation([0.1, 0.7], [0.1, 0.7], rng(5)).p_value == 1.0


def test_a_clear_difference_is_found_and_p_is_never_zero():
    baseline, system = [0] * 60 + [1] * 40, [1] * 90 + [0] * 10
    test = paired_permutation(baseline, system, rng(6), 999)
    interval = paired_bootstrap(baseline, system, rng(6), 999)
    assert test.p_value == pytest.approx(1 / 1000)
    assert interval.excludes_zero
    assert interval.low > 0
    assert paired_bootstrap(system, baseline, rng(6), 999).excludes_zero


def test_many_items_are_drawn_in_blocks():
    items, resamples = 9_000, 1_000  # 9 million cells: three blocks
    gain = np.linspace(-1, 1, items) + 0.05
    interval = paired_bootstrap(np.zeros(items), gain, rng(7), resamples)
    test = paired_permutation(np.zeros(items), gain, rng(7), resamples)
    assert (interval.resamples, test.resamples) == (resamples, resamples)
    standard_error = gain.std() / np.sqrt(items)
    quantile_error = (
        np.sqrt(0.025 * 0.975 / resamples) / 0.0584 * standard_error
    )  # 0.0584 is the normal density at 1.96
    assert interval.low == pytest.approx(0.05 - 1.96 * standard_error, abs=SIGMAS * quantile_error)
    assert test.p_value == pytest.approx(1 / (1 + resamples))  # 0.05 is eight standard errors


@settings(max_examples=25)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-5, 5)), min_size=2, max_size=8), st.integers(0, 9))
def test_corpus_tests_on_a_mean_equal_the_fast_ones(pairs: list[tuple[float, float]], seed: int):
    baseline, system = np.array(pairs).T
    statistic = mean_of(baseline, system)
    fast = paired_bootstrap(baseline, system, rng(seed), 50)
    slow = paired_bootstrap_corpus(statistic, len(baseline), rng(seed), 50)
    assert (slow.difference, slow.low, slow.high) == pytest.approx((fast.difference, fast.low, fast.high), abs=1e-9)
    assert (slow.confidence, slow.items, slow.resamples) == (fast.confidence, fast.items, fast.resamples)


def test_corpus_permutation_on_a_mean_equals_the_fast_one():
    source = rng(8)
    baseline, system = source.random(15), source.random(15) + 0.1
    fast = paired_permutation(baseline, system, rng(9), 300)
    slow = paired_permutation_corpus(mean_of(baseline, system), 15, rng(9), 300)
    assert slow.difference == pytest.approx(fast.difference)
    assert slow.p_value == fast.p_value


def test_macro_f1_of_two_systems():
    source = rng(10)
    labels = np.array(["Cause-Effect(e1,e2)", "Cause-Effect(e2,e1)", "Message-Topic(e1,e2)", "Other"])
    gold = labels[source.integers(0, 4, 200)]
    good = np.where(source.random(200) < 0.9, gold, labels[source.integers(0, 4, 200)])
    poor = np.where(source.random(200) < 0.3, gold, labels[source.integers(0, 4, 200)])
    statistic = semeval_resampler([*gold.tolist()] * 2, [*poor.tolist(), *good.tolist()])
    interval = paired_bootstrap_corpus(statistic, 200, rng(11), 200)
    test = paired_permutation_corpus(statistic, 200, rng(11), 200)
    expected = (
        semeval_score(gold.tolist(), good.tolist()).macro_f1 - semeval_score(gold.tolist(), poor.tolist()).macro_f1
    )
    assert interval.difference == pytest.approx(expected)
    assert test.difference == pytest.approx(expected)
    assert interval.low < expected < interval.high
    assert interval.excludes_zero
    assert test.p_value == pytest.approx(1 / 201)
    same = semeval_resampler([*gold.tolist()] * 2, [*poor.tolist()] * 2)
    assert paired_permutation_corpus(same, 200, rng(11), 20).p_value == 1.0


def test_results_repeat_with_the_seed_and_change_sign_with_the_sides():
    source = rng(12)
    first, second = source.random(30), source.random(30)
    forth = paired_bootstrap(first, second, rng(13))
    back = paired_bootstrap(second, first, rng(13))
    assert paired_bootstrap(first, second, rng(13)) == forth
    assert paired_bootstrap(first, second, rng(14)) != forth
    assert (back.difference, back.low, back.high) == pytest.approx((-forth.difference, -forth.high, -forth.low))
    assert paired_permutation(first, second, rng(13)).p_value == paired_permutation(second, first, rng(13)).p_value


def test_records_read_as_sentences():
    assert str(BootstrapInterval(2.1, 0.31, 3.9, 0.95, 1565, 10_000)) == (
        "+2.1 [+0.31, +3.9] (95 % paired bootstrap interval over 1,565 items, 10,000 resamples; zero lies outside)"
    )
    assert "zero lies inside" in str(BootstrapInterval(2.1, -0.31, 3.9, 0.95, 1565, 10_000))
    assert str(PermutationTest(-0.5, 0.0123, 200, 999)) == (
        "-0.5, p = 0.012 (two-sided paired permutation test over 200 items, 999 resamples)"
    )


@pytest.mark.parametrize("test", [paired_bootstrap, paired_permutation])
def test_bad_scores_are_errors(test):
    with pytest.raises(UserError, match="2 scores of the baseline but 3 of the system; a paired test needs"):
        test([0.0, 1.0], [0.0, 1.0, 1.0], rng())
    with pytest.raises(UserError, match=r"item 1 \(from 0\) has scores 1.0 and nan; expected finite"):
        test([0.0, 1.0], [0.0, float("nan")], rng())
    with pytest.raises(UserError, match="comparison of 1 items is not informative; expected at least 2"):
        test([0.0], [1.0], rng())
    with pytest.raises(UserError, match="resamples is 0; expected 1 or more"):
        test([0.0, 1.0], [1.0, 1.0], rng(), 0)


@pytest.mark.parametrize("test", [paired_bootstrap_corpus, paired_permutation_corpus])
def test_bad_sizes_are_errors(test):
    with pytest.raises(UserError, match="comparison of 1 items"):
        test(lambda rows: 0.0, 1, rng())
    with pytest.raises(UserError, match="resamples is -1"):
        test(lambda rows: 0.0, 5, rng(), -1)


def test_confidence_is_a_probability():
    with pytest.raises(UserError, match=r"confidence is 95\.0; expected a probability between 0 and 1, such as 0\.95"):
        paired_bootstrap([0.0, 1.0], [1.0, 1.0], rng(), confidence=95.0)
    with pytest.raises(UserError, match=r"confidence is 0\.0"):
        paired_bootstrap_corpus(lambda rows: 0.0, 5, rng(), confidence=0.0)
