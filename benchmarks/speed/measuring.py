"""What a row of the table is, and how two ways to do the same work are timed against each other."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median, quantiles

__all__ = ["Aim", "Measured", "Measurement", "Row", "compare_speed", "medians", "take_turns"]

Work = Callable[[], object]
Measured = tuple[Sequence[float], dict[str, float], str]
"""The value of each turn, the median seconds of what was timed, and a note."""


@dataclass(frozen=True)
class Aim:
    """The bound that a row's value should keep: ``at_least`` it, or at most."""

    bound: float
    at_least: bool = True

    def is_met(self, value: float) -> bool:
        """Return whether a value keeps the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:g}"


@dataclass(frozen=True)
class Measurement:
    """One row of the table: the median of ``value`` over ``repeats`` turns, and its quartiles.

    ``seconds`` are medians of what was timed, by name; ``note`` is what else must be known to read the row.
    """

    row: str
    work: str
    against: str
    value: float
    low: float
    high: float
    repeats: int
    unit: str = "x"
    aim: str = ""
    met: bool | None = None
    seconds: dict[str, float] | None = None
    note: str = ""

    def record(self) -> dict[str, object]:
        """Return it as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Row:
    """A named part of the table: what it does, what it is compared with, and how it is measured.

    ``measure`` gets the number of turns and returns the values, the medians in seconds, and a note.
    """

    name: str
    work: str
    against: str
    measure: Callable[[int], Measured]
    aim: Aim | None = None
    unit: str = "x"

    def run(self, repeats: int) -> Measurement:
        """Measure the row."""
        values, seconds, note = self.measure(repeats)
        middle = median(values)
        low, high = (quantiles(values, n=4)[0::2]) if len(values) > 1 else (middle, middle)
        return Measurement(
            self.name,
            self.work,
            self.against,
            middle,
            low,
            high,
            len(values),
            self.unit,
            "" if self.aim is None else str(self.aim),
            None if self.aim is None else self.aim.is_met(middle),
            seconds,
            note,
        )


def take_turns(works: Mapping[str, Work], repeats: int) -> dict[str, list[float]]:
    """Return the seconds of each work in each of ``repeats`` turns, after one turn to warm up.

    All works run in every turn, one after the other, so that a slow moment of the machine meets each of them.
    """
    for work in works.values():
        work()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            began = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def compare_speed(theirs: Work, ours: Work, repeats: int) -> tuple[list[float], dict[str, float]]:
    """Return how many times as fast ``ours`` is in each turn, and the median seconds of both."""
    seconds = take_turns({"theirs": theirs, "ours": ours}, repeats)
    ratios = [their / our for their, our in zip(seconds["theirs"], seconds["ours"], strict=True)]
    return ratios, medians(seconds)


def medians(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Return the median of each work's seconds."""
    return {name: median(taken) for name, taken in seconds.items()}
