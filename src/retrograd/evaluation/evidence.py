"""Compare an experiment with its controls over seeds: differences, the strongest rival and one plain sentence.

A difference is the mean over seeds of the official score's difference; interval and p are paired over the test examples
(`retrograd.metrics.significance`), the same examples for every seed. What another seed would have given is another
source of chance, which the standard deviation over seeds and the number of seeds that went the other way describe.

The sentence compares with the *strongest rival*: of closed book, random neighbours and frozen retriever the one with
the best mean score; of equal ones the last named. The choice is made on the test scores and can only make the
experiment look worse in the mean; p is not corrected for it. The oracle sees the answer and is no rival.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

import numpy as np

from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    Statistic,
    is_beyond_chance,
    mean_statistic,
    paired_bootstrap_corpus,
    paired_permutation_corpus,
)

__all__ = ["Difference", "Evidence", "difference", "format_spread", "metric_name"]

_METRICS = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "f1": "F1",
    "exact_match": "exact match",
    "regex_match": "exact match (patterns)",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
}


@dataclass(frozen=True)
class Difference:
    """The experiment's score less that of a ``control``, in percent: by seed, and for the mean over seeds."""

    control: str
    by_seed: tuple[float, ...]
    interval: BootstrapInterval
    test: PermutationTest

    @property
    def mean(self) -> float:
        """Return the mean over seeds."""
        return fmean(self.by_seed)

    @property
    def is_significant(self) -> bool:
        """Return whether the choice of test examples hardly explains the difference (`is_beyond_chance`)."""
        return is_beyond_chance(self.interval, self.test)


@dataclass(frozen=True)
class Evidence:
    """The scores of an experiment and of its controls, with the differences between them.

    ``subject`` is what helped or did not ("joint training"). ``scores`` are those of every system, in percent, by name
    and seed; ``rivals`` are the controls that count, each with the words by which the sentence calls it.
    """

    subject: str
    metric: str
    scores: Mapping[str, Sequence[float]]
    differences: Sequence[Difference]
    rivals: Mapping[str, str]

    @property
    def main(self) -> Difference:
        """Return the difference from the strongest rival."""
        differences = [difference for difference in self.differences if difference.control in self.rivals]
        best = max(fmean(self.scores[difference.control]) for difference in differences)
        return next(d for d in reversed(differences) if fmean(self.scores[d.control]) == best)

    @property
    def sentence(self) -> str:
        """Return the result as one sentence, which says so where there is one seed alone."""
        main = self.main
        seeds = f"{len(main.by_seed)} seed{'s' if len(main.by_seed) > 1 else ''}"
        if not any(fmean(by_seed) > 0 for by_seed in self.scores.values()):
            return f"{self.subject} cannot be judged: {metric_name(self.metric)} is 0 for every system, {seeds}"
        verdict = "made no difference that this test can tell"
        if main.mean > 0 and all(d.is_significant for d in self.differences if d.control in self.rivals):
            verdict = "helped"
        elif main.mean < 0 and main.is_significant:
            verdict = "hurt"
        opposite = sum(gain * main.mean < 0 for gain in main.by_seed) if main.is_significant else 0
        against = f"; {opposite} of {seeds} went the other way" if opposite else ""
        if len(main.by_seed) == 1:
            verdict, against = f"{verdict} in the one seed trained", ", and what others would give is not known"
        return (
            f"{self.subject} {verdict}: {format_spread(main.by_seed, '+')} {metric_name(self.metric)} over "
            f"{self.rivals[main.control]}, p = {main.test.p_value:.2g}, {seeds}{against}"
        )


def difference(control: str, by_seed: Sequence[Statistic], items: int, resamples: int = 1_000) -> Difference:
    """Test the difference between two systems that answered the same ``items``, given one statistic per seed over both.

    The control's answers come first. The draws are the same at every call. Raises `UserError` for fewer than two items.
    """
    pooled, own = mean_statistic(by_seed), np.arange(items)
    interval = paired_bootstrap_corpus(pooled, items, np.random.default_rng(0), resamples)
    test = paired_permutation_corpus(pooled, items, np.random.default_rng(0), resamples)
    return Difference(control, tuple(statistic(own + items) - statistic(own) for statistic in by_seed), interval, test)


def format_spread(values: Sequence[float], sign: str = "") -> str:
    """Format the mean and, for several values, the standard deviation (n - 1); ``sign`` "+" shows the mean's sign."""
    if not values:
        return ""
    return f"{fmean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def metric_name(metric: str) -> str:
    """Return a metric's name as people write it."""
    return _METRICS.get(metric, metric)
