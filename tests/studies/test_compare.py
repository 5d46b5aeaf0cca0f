"""Comparing two runs, from files written by hand: official scores, agreement, and refusals."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from rich.console import Console

from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.experiment import Experiment
from retrograd.metrics.relations import semeval_score
from retrograd.report.comparison import print_comparison
from retrograd.studies.compare import compare
from retrograd.types import UserError

DATA = RelationData(train_count=50, test_count=200)


def run(folder: Path, wrong: float, seed: int = 0, data: RelationData = DATA) -> Path:
    """A folder as `train` leaves it, whose answers are right but for a share of them."""
    folder.mkdir()
    (folder / "experiment.toml").write_text(Experiment(data=data).to_toml())
    loaded = data.load(0)
    (folder / "labels.json").write_text(json.dumps(RelationData().task_record(loaded.task)))
    rng = np.random.default_rng(seed)
    choices = loaded.task.choices
    records = [
        {"id": e.id, "answer": choices[rng.integers(len(choices))] if rng.random() < wrong else e.target}
        for e in loaded.test
    ]
    (folder / "predictions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_scores_are_official_and_a_real_difference_is_seen(tmp_path: Path) -> None:
    bad, good = run(tmp_path / "bad", 0.5), run(tmp_path / "good", 0.2, 1)
    found = compare(bad, good, resamples=200)
    loaded = DATA.load(0)
    gold = [loaded.task.relation_of(e.target, e) for e in loaded.test]
    for path, score in zip((bad, good), found.scores, strict=True):
        told = [json.loads(line)["answer"] for line in (path / "predictions.jsonl").read_text().splitlines()]
        answers = [loaded.task.relation_of(a, e) for a, e in zip(told, loaded.test, strict=True)]
        assert score == pytest.approx(semeval_score(gold, answers).macro_f1)  # pyright: ignore[reportArgumentType]
    assert found.interval.low > 0
    assert found.test.p_value < 0.05
    assert sum(found.agreement.values()) == 200
    assert found.agreement["system alone"] > found.agreement["baseline alone"]
    console = Console(width=100, record=True, file=io.StringIO())
    print_comparison(found, ("bad", "good"), console)
    text = console.export_text()
    assert "more than the choice of test items explains" in text
    assert "p = 0.005" in text  # 1 / 201, never 0
    fine = replace(found, test=replace(found.test, p_value=1 / 20_001))
    print_comparison(fine, ("bad", "good"), console)
    assert "p = 5e-05" in console.export_text()
    assert f"{found.relations[0].system - found.relations[0].baseline:+.1f}" in text


def test_a_run_beside_itself_does_not_differ(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 0.3)
    found = compare(one, one, resamples=100)
    assert (found.interval.difference, found.test.p_value) == (0.0, 1.0)


def test_labels_of_ones_own_are_compared_by_their_own_metric(tmp_path: Path) -> None:
    lines = [{"text": "Ann saw Bob", "head": [0, 3], "tail": [8, 11], "relation": r} for r in ("a", "b", "none") * 9]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    cases: list[tuple[Literal["micro", "macro"], str]] = [("micro", "none"), ("macro", "none"), ("micro", "")]
    for metric, negative in cases:
        data = RelationData(
            train=str(tmp_path / "data.jsonl"),
            test=str(tmp_path / "data.jsonl"),
            labels="from_train",
            negative=negative,
            metric=metric,
        )
        folder = tmp_path / f"{metric}{negative}"
        folder.mkdir()
        one, two = run(folder / "1", 0.9, 2, data), run(folder / "2", 0.0, 0, data)
        found = compare(one, two, resamples=100)
        assert found.metric == f"{metric}_f1"
        assert found.scores[1] == 100
        assert {gain.relation for gain in found.relations} == {"a", "b", "none"} - {negative}
        right = sum(found.agreement[name] for name in ("both", "baseline alone"))
        assert negative or found.scores[0] == pytest.approx(100 * right / 27)  # micro-F1 of all labels is accuracy


def test_what_cannot_be_compared_says_so(tmp_path: Path) -> None:
    one = run(tmp_path / "one", 0.3)
    with pytest.raises(UserError, match="other test items"):
        compare(one, run(tmp_path / "other", 0.3, data=RelationData(train_count=50, test_count=150)))
    predictions = one / "predictions.jsonl"
    lines = predictions.read_text().splitlines(keepends=True)
    predictions.write_text("".join(lines[1:]))
    with pytest.raises(UserError, match=f"hold other items .{json.loads(lines[0])['id']!r} is in one of them alone"):
        compare(one, one)
    predictions.write_text('{"id": "1"}\n')
    with pytest.raises(UserError, match=r'predictions\.jsonl, line 1: expected "id" and "answer"'):
        compare(one, one)
    predictions.unlink()
    with pytest.raises(UserError, match=f"one has no predictions; score it with: retrograd evaluate {one} --out {one}"):
        compare(one, one)
    with pytest.raises(UserError, match="is not a run"):
        compare(tmp_path, one)


def test_runs_scored_otherwise_or_on_other_sentences_are_refused(tmp_path: Path) -> None:
    def own(name: str, text: str, negative: str) -> Path:
        lines = [{"text": f"{text} saw Bob", "head": [0, 3], "tail": [8, 11], "relation": r} for r in ("a", "b") * 5]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        file = str(tmp_path / f"{name}.jsonl")
        data = RelationData(train=file, test=file, labels="from_train", negative=negative, metric="macro")
        return run(tmp_path / name, 0.5, data=data)

    one = own("one", "Ann", "")
    with pytest.raises(UserError, match=r"negative is None in .*one, 'b' in .*two; compare runs scored alike"):
        compare(one, own("two", "Ann", "b"))
    with pytest.raises(UserError, match=r"item '1' is '@ Ann @.*' in .*one, '@ Eve @.*' in .*three"):
        compare(one, own("three", "Eve", ""))  # without ids: both are numbered by line
    (one / "experiment.toml").write_text(Experiment(data=replace(DATA, test="")).to_toml())
    (one / "labels.json").write_text(json.dumps(RelationData().task_record(DATA.load(0).task)))
    with pytest.raises(UserError, match="one has no test data of its own"):
        compare(one, one)
