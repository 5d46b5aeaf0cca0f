"""F1 over the number of retrieved instances, with the spread over seeds: read from finished runs, no model opened."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import read_run_task
from retrograd.experiments.text import flatten_settings
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, suggest_name
from retrograd.util.text_files import write_json

__all__ = ["CurveReport", "Point", "compare_runs", "score_of"]


@dataclass(frozen=True)
class Point:
    """The runs of one recipe name at one value of the setting: their seeds and scores in percent, in the same order."""

    name: str
    value: float
    seeds: list[int]
    scores: list[float]

    @property
    def mean(self) -> float:
        """Return the mean score."""
        return statistics.fmean(self.scores)

    @property
    def deviation(self) -> float | None:
        """Return the standard deviation over runs (n - 1); None for a single one."""
        return statistics.stdev(self.scores) if len(self.scores) > 1 else None


@dataclass(frozen=True)
class CurveReport:
    """Points in order of name and value. ``over`` says in words what the value is, ``metric`` which score it is."""

    over: str
    metric: str
    points: list[Point]

    def record(self) -> JsonObject:
        """Return the points as JSON."""
        points: list[JsonValue] = [
            asdict(point) | {"mean": point.mean, "standard_deviation": point.deviation} for point in self.points
        ]
        return {"over": self.over, "metric": self.metric, "points": points}

    def save(self, folder: Path) -> None:
        """Write ``curves.json``."""
        write_json(folder / "curves.json", self.record())


def compare_runs(runs: Sequence[Path], out: Path, over: str = "") -> CurveReport:
    """Return the official score of each run on its own test data, by recipe name and setting; write ``curves.json``.

    ``over`` is a numeric setting such as ``data.train_count``; empty means k: the soft slots where the objective has
    any, else ``training.passages``. Raises `UserError` for a folder that is no run, a run without scores, runs scored
    by different metrics, one run given twice, and a setting that some run has not or that is no number.
    """
    scores_by_point: dict[tuple[str, float], list[tuple[int, float]]] = {}
    metrics: dict[str, Path] = {}
    for path in _require_distinct(runs):
        run = RunDirectory.open(path)
        experiment = Experiment.load(run.experiment)
        metric = read_run_task(experiment, run).primary_metric
        metrics.setdefault(metric, path)
        where = (experiment.name, _value(experiment, over, path))
        scores_by_point.setdefault(where, []).append((experiment.seed, score_of(path, metric)))
    if len(metrics) > 1:
        both = " and ".join(f"{path} by {metric}" for metric, path in metrics.items())
        raise UserError(f"the runs are scored differently: {both}; compare runs of one metric at a time")
    points = [
        Point(name, value, [seed for seed, _ in sorted(pairs)], [score for _, score in sorted(pairs)])
        for (name, value), pairs in sorted(scores_by_point.items())
    ]
    report = CurveReport(over or "k (soft slots, else training.passages)", next(iter(metrics)), points)
    report.save(out)
    return report


def _require_distinct(runs: Sequence[Path]) -> list[Path]:
    """Raise `UserError` for a run given twice, which would make the spread look smaller than it is."""
    earlier: set[Path] = set()
    for path in runs:
        if path.resolve() in earlier:
            raise UserError(f"{path} is given twice; name each run once")
        earlier.add(path.resolve())
    return list(runs)


def score_of(path: Path, metric: str) -> float:
    """Return a score of the answers of the run in ``path``. Raises `UserError` where its ``scores.json`` has none."""
    run = RunDirectory(path)
    if not run.scores_file.exists():
        raise UserError(f"{path} has no scores.json; evaluate it first: retrograd evaluate {path} --out {path}")
    answers = run.scores()["answers"]
    if metric not in answers:
        raise UserError(f"{run.scores_file}: no number under answers, {metric}; evaluate the run again")
    return answers[metric]


def _value(experiment: Experiment, over: str, path: Path) -> float:
    settings = flatten_settings(experiment.to_mapping())
    if not over:
        over = "objective.slots" if "objective.slots" in settings else "training.passages"
    if over not in settings:
        raise UserError(f"--over {over}: {path} has no such setting; {suggest_name(over, settings)}")
    value = settings[over]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise UserError(f"--over {over}: in {path} it is {value!r}; choose a setting that is a number")
    return float(value)
