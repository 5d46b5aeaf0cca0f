"""Did it help? An experiment against its controls, over seeds: differences, the strongest rival, one plain sentence.

A difference is the mean over seeds of the official score's difference; interval and p are paired over the test examples
(`retrograd.metrics.significance`), the same examples for every seed. What another seed would have given is another
source of chance: the standard deviation over seeds, and how many seeds went the other way, say something about that.

The sentence compares with the *strongest rival*: of closed book, random neighbours and frozen retriever the one with
the best mean score; of equal ones the last named. The choice is made on the test scores and can only make the
experiment look worse in the mean; p is not corrected for it. The oracle is told the answer and is no rival.
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
    mean_statistic,
    paired_bootstrap_corpus,
    paired_permutation_corpus,
)

__all__ = ["Difference", "Evidence", "difference", "metric_words", "spread"]

_SURE = 0.05
_METRICS = {
    "macro_f1": "macro-F1",
    "micro_f1": "micro-F1",
    "f1": "F1",
    "exact_match": "exact match",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu_1": "BLEU-1",
    "bleu_4": "BLEU-4",
}


@dataclass(frozen=True)
class Difference:
    """The experiment less a ``control``, in percent: by seed, and of the mean over seeds."""

    control: str
    by_seed: tuple[float, ...]
    interval: BootstrapInterval
    test: PermutationTest

    @property
    def mean(self) -> float:
        """Over seeds."""
        return fmean(self.by_seed)

    @property
    def sure(self) -> bool:
        """Whether exchanged answers would hardly give as much, for these trained models: p below 0.05."""
        return self.test.p_value < _SURE


@dataclass(frozen=True)
class Evidence:
    """An experiment beside its controls.

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
        """Against the strongest rival."""
        found = [one for one in self.differences if one.control in self.rivals]
        best = max(fmean(self.scores[one.control]) for one in found)
        return next(one for one in reversed(found) if fmean(self.scores[one.control]) == best)

    @property
    def sentence(self) -> str:
        """What came out, in a line."""
        main = self.main
        seeds = f"{len(main.by_seed)} seed{'s' if len(main.by_seed) > 1 else ''}"
        if not any(fmean(found) > 0 for found in self.scores.values()):
            return f"{self.subject} cannot be judged: {metric_words(self.metric)} is 0 for every system, {seeds}"
        verdict = "made no difference that this test can tell"
        if main.mean > 0 and all(one.sure for one in self.differences if one.control in self.rivals):
            verdict = "helped"
        elif main.mean < 0 and main.sure:
            verdict = "hurt"
        other = sum(one * main.mean < 0 for one in main.by_seed) if main.sure else 0
        against = f"; {other} of {seeds} went the other way" if other else ""
        return (
            f"{self.subject} {verdict}: {spread(main.by_seed, '+')} {metric_words(self.metric)} over "
            f"{self.rivals[main.control]}, p = {main.test.p_value:.2g}, {seeds}{against}"
        )


def difference(control: str, by_seed: Sequence[Statistic], items: int, resamples: int = 1_000) -> Difference:
    """From one statistic a seed over both systems' answers to the same ``items``, the control's first.

    The draws are the same at every call. Raises `UserError` for fewer than two items.
    """
    pooled, own = mean_statistic(by_seed), np.arange(items)
    interval = paired_bootstrap_corpus(pooled, items, np.random.default_rng(0), resamples)
    test = paired_permutation_corpus(pooled, items, np.random.default_rng(0), resamples)
    return Difference(control, tuple(one(own + items) - one(own) for one in by_seed), interval, test)


def spread(values: Sequence[float], sign: str = "") -> str:
    """Mean and, of several, standard deviation (n - 1); ``sign`` "+" shows that of the mean."""
    if not values:
        return ""
    return f"{fmean(values):{sign}.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def metric_words(metric: str) -> str:
    """A score's name as people write it."""
    return _METRICS.get(metric, metric)
