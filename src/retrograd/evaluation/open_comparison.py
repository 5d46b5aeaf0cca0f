"""Compare two systems that answer the same examples in free text, and test whether the difference is chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrograd.metrics.resampling import answer_resampler, item_scores
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    paired_bootstrap,
    paired_bootstrap_corpus,
    paired_permutation,
    paired_permutation_corpus,
)
from retrograd.tasks.answer_scores import require_metric
from retrograd.types import Example, UserError

__all__ = ["OpenComparison", "compare_open"]


@dataclass(frozen=True)
class OpenComparison:
    """Scores of baseline and system in percent by ``metric``, and their difference, system less baseline.

    ``agreement`` counts the examples on which the system is "better", "worse" or "equal", by the example's own score;
    it is empty for BLEU, which examples have no share in.
    """

    metric: str
    scores: tuple[float, float]
    interval: BootstrapInterval
    test: PermutationTest
    agreement: dict[str, int]


def compare_open(
    examples: Sequence[Example],
    baseline: Sequence[str],
    system: Sequence[str],
    metric: str,
    rng: np.random.Generator,
    resamples: int = 1_000,
) -> OpenComparison:
    """Run a paired bootstrap and a paired permutation test, by example, of one of `ANSWER_METRICS`.

    Each answer is scored against its example's best gold answer. Both lists of answers are
    in the order of the examples. Raises `UserError` for an unknown metric, for unequal lengths, for an example without
    a target and for fewer than two examples.
    """
    require_metric(metric)
    for name, answers in (("baseline", baseline), ("system", system)):
        if len(answers) != len(examples):
            raise UserError(f"{len(answers)} answers of the {name} to {len(examples)} examples; give one per example")
    golds = [(example.target, *example.targets[1:]) for example in examples]
    first, second = item_scores(metric, golds, baseline), item_scores(metric, golds, system)
    if first is None or second is None:
        statistic = answer_resampler(metric, [*golds, *golds], [*baseline, *system])
        interval = paired_bootstrap_corpus(statistic, len(golds), rng, resamples)
        test = paired_permutation_corpus(statistic, len(golds), rng, resamples)
        rows = np.arange(len(golds))
        return OpenComparison(metric, (statistic(rows), statistic(rows + len(golds))), interval, test, {})
    interval = paired_bootstrap(first, second, rng, resamples)
    test = paired_permutation(first, second, rng, resamples)
    gain = np.sign(second - first).astype(int).tolist()
    agreement = {"better": gain.count(1), "worse": gain.count(-1), "equal": gain.count(0)}
    return OpenComparison(metric, (float(first.mean()), float(second.mean())), interval, test, agreement)
