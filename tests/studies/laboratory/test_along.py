"""The laboratory at each checkpoint of a run: what it finds there is what it would find on that model alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import run_experiment
from retrograd.report.laboratory_along import print_along
from retrograd.studies.laboratory.along import Moment, run_laboratory_along
from retrograd.studies.laboratory.lab import run_laboratory
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError

RECORDS = [
    {
        "text": f"the {thing} holds tea number {i} .",
        "head": [4, 4 + len(thing)],
        "tail": [len(thing) + 11, len(thing) + 14],
        "relation": label,
    }
    for i, (thing, label) in enumerate((thing, label) for thing in ("cup", "box", "car") for label in ("in", "part of"))
]
pytestmark = pytest.mark.slow

NAMES = ["renormalised", "RLOO"]


def experiment(folder: Path, encoder: Path, generator: Path, *changes: str) -> Experiment:
    data = folder / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    settings = [f"data.train={data}", "data.test=", "data.labels=from_train", "warm_start.epochs=0"]
    settings += [f"retriever.model={encoder}", f"generator.model={generator}", "training.passages=2"]
    settings += ["training.epochs=1", "training.batch_size=2", "training.precision=fp32", "training.save_every=1"]
    settings += ["training.retriever_learning_rate=0.05", "training.generator_learning_rate=0.05"]
    return Experiment().with_settings([*settings, *changes])


@pytest.fixture(scope="module")
def run(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps, a checkpoint after each."""
    folder = tmp_path_factory.mktemp("along")
    asked = experiment(folder, tiny_encoder, tiny_seq2seq, "training.keep_checkpoints=0")
    return run_experiment(asked, folder / "run").path


def figures(moment: Moment) -> list[object]:
    return [finding.measured for finding in moment.report.findings]


def test_every_checkpoint_is_measured_the_last_as_the_finished_model(run: Path, tmp_path: Path) -> None:
    moments = run_laboratory_along(run, NAMES, 4, 5, tmp_path, 0)
    assert [moment.name for moment in moments] == ["training 1", "training 2", "training 3"]
    assert figures(moments[0]) != figures(moments[1]) != figures(moments[2])
    alone = run_laboratory(run, NAMES, 4, 5, tmp_path, 0)
    assert [finding.measured for finding in alone.findings] == figures(moments[-1])
    written = json.loads((tmp_path / "lab-along.json").read_text())["moments"]
    assert [one["step"] for one in written] == [1, 2, 3]
    rloo = next(one for one in written[0]["estimators"] if one["name"].startswith("RLOO"))
    assert rloo["prior"]["trace"] > 0


def test_a_checkpoint_is_measured_as_a_run_that_ended_there_would_be(
    run: Path, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """What is loaded is the model of that moment, with a fresh index."""
    constant = ["training.keep_checkpoints=0", "training.schedule=constant", "training.warmup=0.0"]
    long, short = (
        experiment(tmp_path, tiny_encoder, tiny_seq2seq, *constant, f"training.epochs={epochs}") for epochs in (2, 1)
    )
    runs = [run_experiment(one, tmp_path / f"{one.training.epochs}").path for one in (long, short)]
    along = run_laboratory_along(runs[0], NAMES, 4, 5, tmp_path, 0)
    ended = run_laboratory(runs[1], NAMES, 4, 5, tmp_path, 0)
    assert [moment.step for moment in along] == [1, 2, 3, 4, 5, 6]
    assert figures(along[2]) == [finding.measured for finding in ended.findings]


def test_the_newest_are_kept_or_all(run: Path, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    one = experiment(tmp_path, tiny_encoder, tiny_seq2seq, "training.keep_checkpoints=1")
    kept = RunDirectory.open(run_experiment(one, tmp_path / "run").path).checkpoints()
    assert [folder.name for folder in kept] == ["0003-training-step-0000003"]
    assert len(RunDirectory.open(run).checkpoints()) == 3


def test_the_command_prints_each_part_and_draws(run: Path, tmp_path: Path) -> None:
    words = ["lab", str(run), "--along", "--objectives", ",".join(NAMES), "--queries", "4", "--redraws", "5"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "lab")])
    assert done.exit_code == 0, done.output
    for word in ("prior", "generator", "training 1", "training 2", "training 3", "RLOO"):
        assert word in done.stdout
    assert (tmp_path / "lab" / "lab-along.png").stat().st_size > 1_000


def test_a_run_without_checkpoints_says_how_to_keep_some(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    none = experiment(tmp_path, tiny_encoder, tiny_seq2seq, "training.save_every=0")
    path = run_experiment(none, tmp_path / "run").path
    with pytest.raises(UserError, match=r"keeps no checkpoint .* training\.keep_checkpoints = 0"):
        run_laboratory_along(path, NAMES, 4, 5, tmp_path, 0)


def test_what_is_no_run_has_no_checkpoints() -> None:
    failure = CliRunner().invoke(app, ["lab", "semeval-joint", "--along"]).exception
    assert isinstance(failure, UserError)
    assert "semeval-joint is not a run; leave --along out" in str(failure)


def test_a_part_that_no_estimator_moves_has_no_table(run: Path, tmp_path: Path) -> None:
    moments = run_laboratory_along(run, ["RAG-sequence, renormalised"], 4, 2, tmp_path, 0)
    console = Console(width=160, record=True)
    print_along(moments, console)
    assert "posterior\n" not in console.export_text()


def test_what_looks_at_the_whole_base_teaches_no_passages(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """Neither the prior's nor those that are the posterior's own: its step is not compared with the reference there."""
    own = ["objective.kind=JointStochasticApproximation", "retriever.posterior=true"]
    own += ["retriever.posterior_passages=own", "retriever.trained=both"]
    asked = experiment(tmp_path, tiny_encoder, tiny_seq2seq, *own)
    report = run_laboratory(asked, ["JSA, 50 draws", "exact union, full"], 3, 3, tmp_path, 0)
    cosine = {finding.measured.name: finding.cosine for finding in report.findings}
    assert {name for name in cosine if cosine[name]["posterior"] is None} == {"JSA, 50 draws, whole base"}
    assert cosine["JSA, 50 draws, whole base"]["prior"] is None
