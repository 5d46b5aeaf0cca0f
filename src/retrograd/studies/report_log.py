"""What the log of a run gives a page: curves by stage, cost, staleness and alarms. The run may still be training."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.training.run.run_directory import RunDirectory
from retrograd.util.guards import JsonObject, finite_number
from retrograd.util.text_files import read_jsonl

__all__ = ["Alarm", "Chart", "Series", "StageCost", "TrainingLog", "overlay_charts", "read_log"]

_POINTS = 300
_TITLES = {
    "loss": ("loss", "nats"),
    "log_marginal": ("log p(y|x)", "nats"),
    "best_supports": ("best passage supports the target", "share of queries"),
    "candidate_mass": ("prior's mass on the candidates", "share"),
    "prior_entropy": ("entropy of the prior", "nats"),
    "responsibility_entropy": ("entropy of the posterior", "nats"),
    "acceptance": ("accepted proposals", "share"),
    "staleness_overlap": ("the index finds what fresh embeddings would", "share"),
    "log_z_error": ("standard error of log Z", "nats"),
    "temperature": ("temperature", ""),
    "gradient_norm": ("norm of the gradient", ""),
    "queries_per_second": ("queries a second", ""),
}
"""The curves that are drawn, in this order, each with its unit; scores on development data come first."""
_STALENESS = ("index_age", "index_embedded", "staleness_drift", "staleness_overlap")


@dataclass(frozen=True)
class Series:
    """One line of a chart: values at optimiser steps, which are counted over all stages.

    Of a long series some points are left out; ``lowest`` and ``highest`` are of all that was logged.
    """

    name: str
    steps: tuple[int, ...]
    values: tuple[float, ...]
    lowest: float
    highest: float


@dataclass(frozen=True)
class Chart:
    """One logged quantity, with a line for each stage, or for each system of a study."""

    title: str
    unit: str
    series: tuple[Series, ...]


@dataclass(frozen=True)
class Alarm:
    """An alarm of training, with the step of its stage."""

    stage: str
    step: int
    name: str
    text: str
    remedy: str


@dataclass(frozen=True)
class StageCost:
    """The cost of a stage as far as it was logged: steps, seconds, queries, tokens read, generator forwards a query."""

    stage: str
    steps: int
    seconds: float
    queries: int
    tokens: int
    forwards: float | None


@dataclass(frozen=True)
class TrainingLog:
    """What ``metrics.jsonl`` says. ``staleness`` are the last values of what is measured of the index, by name."""

    charts: tuple[Chart, ...]
    costs: tuple[StageCost, ...]
    alarms: tuple[Alarm, ...]
    staleness: dict[str, float]

    @property
    def where(self) -> str:
        """Return the last step that was logged, in words; "" where there is none."""
        return f"step {self.costs[-1].steps:,} of {self.costs[-1].stage}" if self.costs else ""


def read_log(run: RunDirectory) -> TrainingLog:
    """Read the log of a run. A last line that is being written is left out."""
    lines = list(_read_lines(run.path / "metrics.jsonl"))
    steps = [line for line in lines if "alarm" not in line]
    latest: dict[str, float] = {}
    for line in steps:
        latest |= {name: value for name in _STALENESS if (value := finite_number(line.get(name))) is not None}
    alarms = tuple(
        Alarm(str(line["stage"]), _whole(line, "step"), str(line["alarm"]), str(line.get("says")), str(line["remedy"]))
        for line in lines
        if "alarm" in line and "remedy" in line
    )
    return TrainingLog(tuple(_charts(steps)), tuple(_costs(steps)), alarms, latest)


def overlay_charts(logs: dict[str, TrainingLog]) -> tuple[Chart, ...]:
    """Return the charts of several systems with one line for each system that has logged the quantity."""
    titles = {(chart.title, chart.unit): None for log in logs.values() for chart in log.charts}
    return tuple(
        Chart(title, unit, tuple(series for name, log in logs.items() for series in _joined(name, title, log)))
        for title, unit in titles
    )


def _joined(name: str, title: str, log: TrainingLog) -> Iterator[Series]:
    """Yield the stages of one quantity as one line."""
    for chart in log.charts:
        if chart.title == title:
            lowest, highest = min(one.lowest for one in chart.series), max(one.highest for one in chart.series)
            steps = tuple(step for series in chart.series for step in series.steps)
            values = tuple(value for series in chart.series for value in series.values)
            yield Series(name, steps, values, lowest, highest)


def _read_lines(path: Path) -> Iterator[JsonObject]:
    if path.exists() and path.stat().st_size:
        for _, line in read_jsonl(path, refuse=lambda _: None):
            if isinstance(line.get("stage"), str) and isinstance(line.get("step"), int):
                yield line


def _whole(line: JsonObject, name: str) -> int:
    value = line.get(name)
    return value if isinstance(value, int) else 0


def _stages(lines: Sequence[JsonObject]) -> dict[str, list[JsonObject]]:
    by_stage: dict[str, list[JsonObject]] = {}
    for line in lines:
        by_stage.setdefault(str(line["stage"]), []).append(line)
    return by_stage


def _charts(lines: Sequence[JsonObject]) -> Iterator[Chart]:
    """Yield a chart of each quantity that has at least two values in some stage."""
    scores = dict.fromkeys(name.removeprefix("best_") for line in lines for name in line if name.startswith("best_"))
    known = {name: (f"{name} on development data", "%") for name in scores if name not in ("supports",)} | _TITLES
    for name, (title, unit) in known.items():
        series = tuple(one for one in _series(lines, name) if len(one.steps) > 1)
        if series:
            yield Chart(title, unit, series)


def _series(lines: Sequence[JsonObject], name: str) -> Iterator[Series]:
    before = 0
    for stage, own in _stages(lines).items():
        points = [(_whole(line, "step"), value) for line in own if (value := finite_number(line.get(name))) is not None]
        if points:
            every = -(-len(points) // _POINTS)
            kept = points[::every] if (len(points) - 1) % every == 0 else [*points[::every], points[-1]]
            steps, values = tuple(before + step for step, _ in kept), tuple(_round(value) for _, value in kept)
            everything = [value for _, value in points]
            yield Series(stage, steps, values, _round(min(everything)), _round(max(everything)))
        before += max(_whole(line, "step") for line in own)


def _round(value: float) -> float:
    """Return a value with as many digits as a chart can show."""
    return float(f"{value:.5g}")


def _costs(lines: Sequence[JsonObject]) -> Iterator[StageCost]:
    """Yield the cost of each stage: what the counts of the run grew by."""
    before: JsonObject = {}
    for stage, own in _stages(lines).items():
        last = own[-1]
        forwards = [value for line in own if (value := finite_number(line.get("generator_forwards"))) is not None]
        yield StageCost(
            stage=stage,
            steps=max(_whole(line, "step") for line in own),
            seconds=(finite_number(last.get("time")) or 0.0) - (finite_number(before.get("time")) or 0.0),
            queries=_whole(last, "queries_seen") - _whole(before, "queries_seen"),
            tokens=_whole(last, "tokens_seen") - _whole(before, "tokens_seen"),
            forwards=sum(forwards) / len(forwards) if forwards else None,
        )
        before = last
