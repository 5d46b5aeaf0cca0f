"""The verdict of a run's page: its score, and its difference from the best of the controls that are rivals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrograd.experiments.setting_changes import SettingChange
from retrograd.metrics.significance import BootstrapInterval, PermutationTest, ScoreInterval, is_beyond_chance
from retrograd.studies.report import Kind

__all__ = ["SystemLine", "SystemTable", "judge_run"]


@dataclass(frozen=True)
class SystemLine:
    """One system in a table: its primary score in percent, the run's gain over it, and values of other columns.

    ``is_told`` says whether it is told the answer at test time: a reference, and no rival.
    """

    name: str
    kind: Kind
    score: float
    interval: ScoreInterval | None
    gain: BootstrapInterval | None
    test: PermutationTest | None
    values: tuple[float | None, ...]
    changes: tuple[SettingChange, ...] = ()
    is_told: bool = False


@dataclass(frozen=True)
class SystemTable:
    """The run first, then its rivals, by ``metric``; ``columns`` name the other values."""

    metric: str
    columns: tuple[str, ...]
    lines: tuple[SystemLine, ...]


def judge_run(table: SystemTable, items: int) -> tuple[str, ...]:
    """Return the run's score with its interval, and its difference from the best control, or that there is none.

    A control that is told the answer is named as a reference and never compared with.
    """
    run, *others = table.lines
    metric = table.metric[:1].upper() + table.metric[1:]
    score = f"{metric} {run.score:.1f}{_range(run.interval)} on {items:,} test examples"
    sentence = f"{score}{_comparison([one for one in others if one.kind == 'control' and not one.is_told])}"
    first = f"{sentence}{''.join(f' {one}' for one in _references(others))}"
    if run.is_told:
        return (first, "This run is told the answer at test time: its score is a reference, and no result.")
    return (first,)


def _comparison(rivals: Sequence[SystemLine]) -> str:
    """Return how a sentence that begins with the run's score ends."""
    if not rivals:
        return ". No control run was given, so nothing here says what retrieval or training is worth."
    rival = max(rivals, key=lambda one: one.score)
    best = f"{rival.name}, the best of {len(rivals)} controls" if len(rivals) > 1 else f"the control {rival.name}"
    if rival.gain is None or rival.test is None:
        return f"; {best}, has {rival.score:.1f}, and one example is too few for a test."
    is_beyond = is_beyond_chance(rival.gain, rival.test)
    verdict = "more than the choice of test examples explains" if is_beyond else "which may be chance"
    return (
        f": {rival.gain.difference:+.1f}{_range(rival.gain, '+')} over {best} (p = {rival.test.p_value:.2g}), "
        f"{verdict}. Another training seed is another source of chance."
    )


def _references(others: Sequence[SystemLine]) -> list[str]:
    """Return a sentence for each system that the run is seen beside and not compared with."""
    told = [
        f"{one.name} is told the answer and scores {one.score:.1f}: a reference, no rival."
        for one in others
        if one.is_told
    ]
    votes = [
        f"The vote of the run's neighbours, without a generator, scores {one.score:.1f}."
        for one in others
        if one.kind == "vote" and not one.is_told
    ]
    trivial = [f"The trivial system, {one.name}, scores {one.score:.1f}." for one in others if one.kind == "trivial"]
    return [*told, *votes, *trivial]


def _range(interval: ScoreInterval | BootstrapInterval | None, sign: str = "") -> str:
    return "" if interval is None else f" [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"
