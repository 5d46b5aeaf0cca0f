"""Tests of whether system B is better than system A on these items: paired bootstrap and paired permutation.

*Paired bootstrap* (Efron & Tibshirani 1993; Koehn 2004 for corpus scores): draw the n test items with replacement,
recompute the difference, and read the percentiles: an interval for the difference on other items of the same kind.
*Paired permutation*, or approximate randomisation (Fisher 1935; Noreen 1989; Yeh 2000): if the systems were
interchangeable, swapping their answers on any item would change nothing but chance, so the two-sided p is the share of
random swaps whose difference is at least as large as the observed one. The observed arrangement counts as one swap,
p = (1 + hits) / (1 + resamples), which keeps the test valid and p above 0 (Phipson & Smyth 2010).

Both answer for the *test items* only. A second training seed is another source of chance, which neither can see.

A difference is always system minus baseline, in the unit of the scores that were handed in. Mean-type metrics (exact
match, token F1, recall@k) go in as one score per item. Metrics that are not means (micro-F1, macro-F1, BLEU) go in as a
`Statistic`: a function of item rows that scores *both* systems' answers laid end to end; rows 0 … n-1 are the
baseline's answers, n … 2n-1 the system's to the same items:

    statistic = semeval_resampler([*gold, *gold], [*baseline, *system])
    paired_bootstrap_corpus(statistic, len(gold), rng)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64, Shaped

from retrograd.types import UserError

__all__ = [
    "BootstrapInterval",
    "PermutationTest",
    "Ratio",
    "ScoreInterval",
    "Statistic",
    "bootstrap_corpus",
    "bootstrap_ratios",
    "is_beyond_chance",
    "mean_statistic",
    "paired_bootstrap",
    "paired_bootstrap_corpus",
    "paired_permutation",
    "paired_permutation_corpus",
]

Statistic = Callable[[Int64[np.ndarray, " rows"]], float]
"""A corpus score of the answers at these rows; a row may come several times."""

ItemScores = Sequence[float | int] | Shaped[np.ndarray, " items"]

_SURE = 0.05
"""The p below which a difference may count as one (`is_beyond_chance`)."""

_CELLS_AT_ONCE = 1 << 22  # resamples × items drawn at once: bounds the memory at about 64 MB
_ROUNDING = 1e-10  # differences this close, relative to their scale, are ties broken by the order of summation only


@dataclass(frozen=True, slots=True)
class BootstrapInterval:
    """Percentile interval of a difference (system minus baseline), in the unit of the scores.

    ``confidence`` is a probability, ``items`` the number of paired test items.
    """

    difference: float
    low: float
    high: float
    confidence: float
    items: int
    resamples: int

    @property
    def excludes_zero(self) -> bool:
        """Return whether the whole interval lies on one side of zero."""
        return self.low > 0 or self.high < 0

    def __str__(self) -> str:
        verdict = "zero lies outside" if self.excludes_zero else "zero lies inside"
        return (
            f"{self.difference:+.4g} [{self.low:+.4g}, {self.high:+.4g}] ({100 * self.confidence:g} % paired bootstrap "
            f"interval over {self.items:,} items, {self.resamples:,} resamples; {verdict})"
        )


@dataclass(frozen=True, slots=True)
class PermutationTest:
    """Two-sided p-value of a difference (system minus baseline), which is in the unit of the scores."""

    difference: float
    p_value: float
    items: int
    resamples: int

    def __str__(self) -> str:
        return (
            f"{self.difference:+.4g}, p = {self.p_value:.2g} (two-sided paired permutation test over "
            f"{self.items:,} items, {self.resamples:,} resamples)"
        )


def is_beyond_chance(interval: BootstrapInterval, test: PermutationTest) -> bool:
    """Return whether the choice of test items hardly explains a difference: its interval leaves out zero and p < 0.05.

    Neither proves the other: an interval may leave out zero where the permutation test finds p above 0.05.
    """
    return interval.excludes_zero and test.p_value < _SURE


@dataclass(frozen=True, slots=True)
class ScoreInterval:
    """Percentile interval of one score, in its own unit; ``confidence`` is a probability."""

    score: float
    low: float
    high: float
    confidence: float
    items: int
    resamples: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """A score in percent as a ratio of sums over items, 100 Σ parts / Σ wholes; 0 where the wholes are 0.

    A mean over the items has wholes of 1, and 0 for items that it does not count.
    """

    parts: Float64[np.ndarray, " items"]
    wholes: Float64[np.ndarray, " items"]

    @classmethod
    def of(cls, parts: ItemScores, wholes: ItemScores | None = None) -> Ratio:
        """Return the ratio of the sums of two sequences; without ``wholes`` it is the mean of the parts."""
        values = np.asarray(parts, dtype=np.float64)
        return cls(values, np.ones_like(values) if wholes is None else np.asarray(wholes, dtype=np.float64))

    @property
    def score(self) -> float:
        """Return the score of all items."""
        whole = float(self.wholes.sum())
        return 100.0 * float(self.parts.sum()) / whole if whole else 0.0


def mean_statistic(parts: Sequence[Statistic]) -> Statistic:
    """Return the mean of several statistics at the same rows, to resample several runs of a system together."""
    return lambda rows: float(np.mean([part(rows) for part in parts]))


def bootstrap_corpus(
    statistic: Statistic, items: int, rng: np.random.Generator, resamples: int = 1_000, confidence: float = 0.95
) -> ScoreInterval:
    """Return the interval of one corpus score of one system; ``statistic`` covers ``items`` rows. Two systems need
    a paired one.

    Calls it ``resamples + 1`` times. Raises `UserError` for arguments out of range.
    """
    _require_range(items, resamples, "a bootstrap")
    _require_confidence(confidence)
    resampled = [statistic(rows) for block in _draws(items, resamples, rng) for rows in block]
    observed = statistic(np.arange(items))
    interval = _make_interval(observed, np.array(resampled, dtype=np.float64), items, confidence)
    return ScoreInterval(observed, interval.low, interval.high, confidence, items, resamples)


def bootstrap_ratios(
    ratios: Mapping[str, Ratio], rng: np.random.Generator, resamples: int = 1_000, confidence: float = 0.95
) -> dict[str, ScoreInterval]:
    """Return the intervals of several scores of one system, all over the same items and from the same draws.

    A draw without an item that a score counts says nothing about that score and is left out; a score that counts no
    item at all has no interval. Raises `UserError` for arguments out of range.
    """
    counted = {name: ratio for name, ratio in ratios.items() if ratio.wholes.any()}
    if not counted:
        return {}
    parts = np.stack([ratio.parts for ratio in counted.values()], axis=1)
    wholes = np.stack([ratio.wholes for ratio in counted.values()], axis=1)
    items = len(parts)
    _require_range(items, resamples, "a bootstrap")
    _require_confidence(confidence)
    draws = [_count_draws(rows, items) for rows in _draws(items, resamples, rng)]
    sums = np.concatenate([counts @ parts for counts in draws]), np.concatenate([counts @ wholes for counts in draws])
    intervals: dict[str, ScoreInterval] = {}
    for column, (name, ratio) in enumerate(counted.items()):
        part, whole = sums[0][:, column], sums[1][:, column]
        interval = _make_interval(ratio.score, 100.0 * part[whole > 0] / whole[whole > 0], items, confidence)
        intervals[name] = ScoreInterval(ratio.score, interval.low, interval.high, confidence, items, resamples)
    return intervals


def paired_bootstrap(
    baseline: ItemScores,
    system: ItemScores,
    rng: np.random.Generator,
    resamples: int = 10_000,
    confidence: float = 0.95,
) -> BootstrapInterval:
    """Return the interval of the difference of two means, from one score per item, the same items in the same order.

    Raises `UserError` for unequal lengths, fewer than two items, scores that are not finite, or arguments out of range.
    """
    gain = _gains(baseline, system)
    _require_range(len(gain), resamples)
    _require_confidence(confidence)
    means = [gain[rows].mean(axis=1) for rows in _draws(len(gain), resamples, rng)]
    return _make_interval(float(gain.mean()), np.concatenate(means), len(gain), confidence)


def paired_bootstrap_corpus(
    statistic: Statistic, items: int, rng: np.random.Generator, resamples: int = 1_000, confidence: float = 0.95
) -> BootstrapInterval:
    """Return the interval of the difference of two corpus scores.

    ``statistic`` covers ``2 * items`` rows (see the module).

    Calls it ``2 * resamples + 2`` times. Raises `UserError` for arguments out of range.
    """
    _require_range(items, resamples)
    _require_confidence(confidence)
    draws = (rows for block in _draws(items, resamples, rng) for rows in block)
    differences = [statistic(rows + items) - statistic(rows) for rows in draws]
    return _make_interval(_observed(statistic, items), np.array(differences, dtype=np.float64), items, confidence)


def paired_permutation(
    baseline: ItemScores, system: ItemScores, rng: np.random.Generator, resamples: int = 10_000
) -> PermutationTest:
    """Return the two-sided p of the difference of two means, from one score per item, the same items in the same order.

    Raises `UserError` for unequal lengths, fewer than two items, scores that are not finite, or arguments out of range.
    """
    gain = _gains(baseline, system)
    _require_range(len(gain), resamples)
    # Swapping an item flips the sign of its gain, so the sum falls by twice the gains that were swapped.
    sums = [gain.sum() - 2.0 * (swapped @ gain) for swapped in _swaps(len(gain), resamples, rng)]
    means = np.concatenate(sums) / len(gain)
    return _make_test(float(gain.mean()), means, len(gain), scale=float(np.abs(gain).mean()))


def paired_permutation_corpus(
    statistic: Statistic, items: int, rng: np.random.Generator, resamples: int = 1_000
) -> PermutationTest:
    """Return the two-sided p of the difference of two corpus scores.

    ``statistic`` covers ``2 * items`` rows (see the module).

    Calls it ``2 * resamples + 2`` times. Raises `UserError` for arguments out of range.
    """
    _require_range(items, resamples)
    rows = np.arange(items)
    swaps = (swapped for block in _swaps(items, resamples, rng) for swapped in block)
    differences = [
        statistic(np.where(swapped, rows, rows + items)) - statistic(np.where(swapped, rows + items, rows))
        for swapped in swaps
    ]
    observed = _observed(statistic, items)
    return _make_test(observed, np.array(differences, dtype=np.float64), items, scale=abs(observed))


def _draws(items: int, resamples: int, rng: np.random.Generator) -> Iterator[Int64[np.ndarray, "resamples items"]]:
    """Yield rows drawn with replacement, a bounded block at a time."""
    for size in _blocks(items, resamples):
        yield rng.integers(0, items, size=(size, items))


def _count_draws(rows: Int64[np.ndarray, "resamples items"], items: int) -> Float64[np.ndarray, "resamples items"]:
    """Return how often each draw holds each item."""
    places = rows + items * np.arange(len(rows))[:, None]
    return np.bincount(places.ravel(), minlength=len(rows) * items).reshape(len(rows), items).astype(np.float64)


def _swaps(items: int, resamples: int, rng: np.random.Generator) -> Iterator[Bool[np.ndarray, "resamples items"]]:
    """Yield fair coins, a bounded block at a time."""
    for size in _blocks(items, resamples):
        yield rng.integers(0, 2, size=(size, items), dtype=np.bool_)


def _blocks(items: int, resamples: int) -> Iterator[int]:
    size = max(1, _CELLS_AT_ONCE // items)
    for start in range(0, resamples, size):
        yield min(size, resamples - start)


def _gains(baseline: ItemScores, system: ItemScores) -> Float64[np.ndarray, " items"]:
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(system, dtype=np.float64)
    if len(first) != len(second):
        raise UserError(
            f"{len(first)} scores of the baseline but {len(second)} of the system; a paired test needs both systems' "
            "scores of the same items in the same order"
        )
    gain = second - first
    if not np.isfinite(gain).all():
        item = int(np.argmin(np.isfinite(gain)))
        raise UserError(f"item {item} (from 0) has scores {first[item]} and {second[item]}; expected finite numbers")
    return gain


def _observed(statistic: Statistic, items: int) -> float:
    rows = np.arange(items)
    return statistic(rows + items) - statistic(rows)


def _make_interval(
    difference: float, resampled: Float64[np.ndarray, " resamples"], items: int, confidence: float
) -> BootstrapInterval:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail])
    return BootstrapInterval(difference, float(low), float(high), confidence, items, len(resampled))


def _make_test(
    difference: float, resampled: Float64[np.ndarray, " resamples"], items: int, scale: float
) -> PermutationTest:
    hits = int((np.abs(resampled) >= abs(difference) - _ROUNDING * scale).sum())
    return PermutationTest(difference, (1 + hits) / (1 + len(resampled)), items, len(resampled))


def _require_range(items: int, resamples: int, what: str = "a paired comparison") -> None:
    if items < 2:
        raise UserError(f"{what} of {items} items is not informative; expected at least 2, better hundreds")
    if resamples < 1:
        raise UserError(f"resamples is {resamples}; expected 1 or more (1,000 to 10,000 are usual)")


def _require_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise UserError(f"confidence is {confidence}; expected a probability between 0 and 1, such as 0.95")
