"""Compare two systems with free answers: the scores are the task's, the tests those of paired scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from retrograd.data.examples import GroundedExample
from retrograd.evaluation.open_comparison import compare_open
from retrograd.metrics.significance import paired_bootstrap, paired_permutation
from retrograd.tasks.answer_scores import ANSWER_METRICS, answer_scores
from retrograd.types import Example, UserError

EXAMPLES = [Example(str(i), "?", targets) for i, targets in enumerate([("cup", "the mug"), ("rain",), ("tea",)] * 8)]
PATTERNS = [GroundedExample(e.id, e.query, e.targets, has_patterns=True) for e in EXAMPLES]
BASELINE = ["mug", "rain", "coffee"] * 8
SYSTEM = ["a cup", "heavy rain", "tea"] * 8


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.mark.parametrize("metric", ANSWER_METRICS)
def test_the_scores_are_those_of_the_task(metric: str) -> None:
    examples = EXAMPLES if metric != "regex_match" else PATTERNS
    found = compare_open(examples, BASELINE, SYSTEM, metric, rng(), resamples=50)
    expected = [answer_scores(examples, answers)[metric] for answers in (BASELINE, SYSTEM)]
    assert list(found.scores) == pytest.approx(expected)
    assert found.interval.difference == pytest.approx(expected[1] - expected[0])
    assert found.test.difference == pytest.approx(expected[1] - expected[0])
    assert found.interval.low <= found.interval.difference <= found.interval.high


def test_the_tests_are_of_paired_scores_by_example() -> None:
    first, second = np.array([100.0, 100.0, 0.0] * 8), np.array([100.0, 0.0, 100.0] * 8)
    found = compare_open(EXAMPLES, BASELINE, SYSTEM, "exact_match", rng(), resamples=200)
    source = rng()
    assert found.interval == paired_bootstrap(first, second, source, 200)
    assert found.test == paired_permutation(first, second, source, 200)
    assert found.agreement == {"better": 8, "worse": 8, "equal": 8}
    assert compare_open(EXAMPLES, BASELINE, SYSTEM, "bleu_1", rng(), resamples=5).agreement == {}


def test_a_system_is_no_better_than_itself() -> None:
    for metric in ("f1", "bleu_1"):
        found = compare_open(EXAMPLES, SYSTEM, SYSTEM, metric, rng(), resamples=20)
        assert (found.interval.low, found.interval.high, found.test.p_value) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize(
    ("examples", "answers", "metric", "advice"),
    [
        (EXAMPLES, SYSTEM, "exact-match", "did you mean"),
        (EXAMPLES, SYSTEM[:-1], "f1", "23 answers of the system to 24 examples"),
        ([*EXAMPLES[:-1], Example("x", "?")], SYSTEM, "f1", "'x' has no target"),
        (EXAMPLES[:1], SYSTEM[:1], "f1", "expected at least 2"),
    ],
)
def test_errors_are_help(examples: Sequence[Example], answers: list[str], metric: str, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        compare_open(examples, BASELINE[: len(examples)], answers, metric, rng(), resamples=5)
