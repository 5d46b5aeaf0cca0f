"""Scores over k with a spread, from folders that look like finished runs; no model is opened."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from retrograd import __main__ as cli
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.experiment import Experiment, TrainingSettings
from retrograd.objectives import NoRetrieval, StochasticTopK, TopKMarginal
from retrograd.report.curves import print_curves
from retrograd.studies.curves import compare_runs
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import UserError
from retrograd.util.text_files import write_json


def finished(folder: Path, experiment: Experiment, score: float) -> Path:
    """What `compare_runs` reads of a run."""
    place = folder / f"{experiment.name}-k{experiment.training.passages}-{experiment.seed}-{experiment.data.metric}"
    place.mkdir(parents=True)
    (place / "experiment.toml").write_text(experiment.to_toml(), encoding="utf-8")
    task = RelationExtraction.from_labels(["holds", "none"], "none", experiment.data.metric)
    write_json(place / "labels.json", RelationData().task_record(task))
    write_json(place / "scores.json", {"answers": {"micro_f1": score, "macro_f1": score + 1}, "neighbours": {}})
    return place


def experiment(name: str, k: int, seed: int, count: int = 0) -> Experiment:
    data = RelationData(train="t.jsonl", test="t.jsonl", labels="from_train", negative="none", train_count=count)
    objective = NoRetrieval() if k == 0 else TopKMarginal()
    return Experiment(name=name, seed=seed, data=data, objective=objective, training=TrainingSettings(passages=k))


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    scores = {("joint", 1, 0): 50.0, ("joint", 1, 1): 54.0, ("joint", 5, 0): 60.0, ("joint", 5, 1): 58.0}
    scores[("closed", 0, 0)] = 40.0
    return [finished(tmp_path, experiment(*which), score) for which, score in scores.items()]


def test_runs_are_grouped_by_recipe_and_k_with_their_spread(runs: list[Path], tmp_path: Path) -> None:
    report = compare_runs(runs[::-1], tmp_path / "out")
    assert report.metric == "micro_f1"
    assert [(point.name, point.value, point.seeds) for point in report.points] == [
        ("closed", 0, [0]),
        ("joint", 1, [0, 1]),
        ("joint", 5, [0, 1]),
    ]
    assert [point.mean for point in report.points] == [40.0, 52.0, 59.0]
    assert report.points[0].deviation is None
    assert report.points[1].deviation == pytest.approx(8**0.5)
    saved = json.loads((tmp_path / "out" / "curves.json").read_text())
    assert saved["points"][1]["scores"] == [50.0, 54.0]
    stream = StringIO()
    print_curves(report, Console(file=stream, width=110))
    assert "52.00  2.83   50.00    54.00  0, 1" in stream.getvalue()


def test_soft_slots_are_the_k_of_objectives_that_have_them(tmp_path: Path) -> None:
    slots = replace(experiment("soft", 8, 0), objective=StochasticTopK(slots=3))
    points = compare_runs([finished(tmp_path, slots, 50.0)], tmp_path / "out").points
    assert points[0].value == 3


def test_any_numeric_setting_can_be_drawn_over(tmp_path: Path) -> None:
    runs = [finished(tmp_path, experiment(f"n{n}", 1, 0, count=n), 50.0) for n in (10, 100)]
    report = compare_runs(runs, tmp_path / "out", "data.train_count")
    assert (report.over, [point.value for point in report.points]) == ("data.train_count", [10, 100])
    with pytest.raises(UserError, match=r"--over data\.train: in .* it is 't\.jsonl'; choose .* a number"):
        compare_runs(runs, tmp_path / "out", "data.train")
    with pytest.raises(UserError, match=r"has no such setting; did you mean 'data\.train_count'"):
        compare_runs(runs, tmp_path / "out", "data.train_cuont")


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="given twice"):
        compare_runs([runs[0], runs[0].parent / runs[0].name], tmp_path / "out")
    one = experiment("other", 1, 0)
    macro = finished(tmp_path, replace(one, data=replace(one.data, metric="macro")), 10.0)
    with pytest.raises(UserError, match=r"scored differently: .* by micro_f1 and .* by macro_f1"):
        compare_runs([runs[0], macro], tmp_path / "out")
    (runs[1] / "scores.json").unlink()
    with pytest.raises(UserError, match=r"no scores\.json; evaluate it first"):
        compare_runs(runs, tmp_path / "out")
    with pytest.raises(UserError, match="is not a run"):
        compare_runs([tmp_path / "nowhere"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_draws_the_curve(runs: list[Path], capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    cli.app(["analyse", "--runs", *map(str, runs), "--out", str(tmp_path / "out")], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "Official score" in printed
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"curves.json", "curves.txt", "curves.png"}
