"""`train --controls` end to end on tiny models: the runs, the sentence, stopping and going on, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from tests.untimed import untimed_lines
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.commands.demo.demonstration import run_demo
from retrograd.commands.train import train_or_resume
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.rag.search_kinds import ORACLE
from retrograd.studies import study as study_module
from retrograd.studies.compare import compare
from retrograd.studies.study import Study
from retrograd.training.run.interrupts import Interrupted
from retrograd.types import UserError

SYSTEMS = ("experiment", "closed-book", "random-neighbours", "frozen-retriever", "oracle")
TINY = [
    "training.precision=fp32", "training.batch_size=4", "training.epochs=1", "training.passages=2",
    "training.log_every=1", "training.probe_passages=0", "warm_start.epochs=1", "warm_start.batch_size=8",
    "generator.max_target_tokens=4",
]  # fmt: skip


def lines(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def relations(folder: Path, encoder: Path, generator: Path) -> Path:
    """The file of an experiment on six sentences."""
    records = [
        {"text": f"the {thing} holds tea number {i} .", "relation": ("holds", "part of")[i % 2]}
        | {"head": [4, 4 + len(thing)], "tail": [len(thing) + 11, len(thing) + 14]}
        for i, thing in enumerate(["cup", "box", "car"] * 2)
    ]
    data = lines(folder / "data.jsonl", records)
    files = [f"data.train={data}", f"data.test={data}", "data.labels=from_train"]
    return asked(folder, [*files, f"retriever.model={encoder}", f"generator.model={generator}", *TINY])


def questions(folder: Path, encoder: Path, generator: Path) -> Path:
    base = lines(
        folder / "base.jsonl",
        [
            {"id": thing, "title": thing, "text": f"the {thing} holds {what} ."}
            for thing, what in (("cup", "tea"), ("box", "rain"), ("car", "wheel"))
        ],
    )
    data = lines(
        folder / "data.jsonl",
        [
            {"id": f"q{i}", "question": f"what holds {what} ?", "answers": [thing]}
            for i, (thing, what) in enumerate((("cup", "tea"), ("box", "rain"), ("nothing", "iota")))
        ],
    )
    files = ["data.kind=questions", f"data.base={base}", f"data.train={data}", f"data.test={data}"]
    objective = ["objective.kind=JointStochasticApproximation", "retriever.posterior=true"]
    models = [f"retriever.model={encoder}", f"generator.model={generator}"]
    return asked(folder, [*files, *models, *objective, *TINY])


def asked(folder: Path, settings: list[str]) -> Path:
    path = folder / "tiny.toml"
    path.write_text(Experiment(name="tiny").with_settings(settings).to_toml(), encoding="utf-8")
    return path


def command(*words: object, status: int = 0) -> str:
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == status, (done.output, done.exception)
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "seeds"), [("relations", (0,)), ("questions", (0, 1))])
def test_an_experiment_beside_its_controls(
    kind: str, seeds: tuple[int, ...], tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    make = relations if kind == "relations" else questions
    file, out = make(tmp_path, tiny_encoder, tiny_seq2seq), tmp_path / "study"
    printed = command("train", file, "--controls", "--seeds", ",".join(map(str, seeds)), "--out", out)
    runs = [out / f"{system}-seed{seed}" for seed in seeds for system in SYSTEMS]
    assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(path.name for path in runs)
    again = command("evaluate", out)
    assert printed.startswith(again.strip())
    sentence = " ".join(again.strip().split("\n\n")[-1].split())  # it may be wrapped
    metric = "micro-F1" if kind == "relations" else "exact match"
    assert sentence.startswith("joint training ")
    assert f" {metric} " in sentence
    counted = f"{len(seeds)} seed{'s' * (len(seeds) > 1)}"
    assert f", {counted}" in sentence
    found = json.loads((out / "evidence.json").read_text())
    assert found["sentence"] == sentence
    assert (out / "evidence.txt").read_text() == again
    primary = found["metric"]
    for one in found["differences"]:
        own, its = (found["scores"][system][primary] for system in ("experiment", one["control"]))
        gains = [a - b for a, b in zip(own, its, strict=True)]
        assert one["by_seed"] == pytest.approx(gains)  # what is resampled is the official score
    # An ordinary run each: opened, compared; the oracle alone has a share of examples that it was told nothing of.
    opened = open_run(out / f"oracle-seed{seeds[-1]}")
    assert opened.model.search_kind == ORACLE
    assert len(opened.data.test) == compare(runs[1], runs[0], resamples=100).interval.items
    assert "oracle_found" not in json.loads((runs[3] / "scores.json").read_text())["neighbours"]
    told = found["scores"]["oracle"]["oracle_found"]
    assert told == pytest.approx([100.0 if kind == "relations" else 100 * 2 / 3] * len(seeds))
    plan = json.loads((out / "study.json").read_text())
    assert {one["name"] for one in plan["changes"]["frozen retriever"]} >= {"retriever.trained", "objective.kind"}
    assert plan["seeds"] == [*seeds]
    steps = [(run / "metrics.jsonl").read_text().count('"training"') for run in runs]
    assert len(set(steps)) == 1  # of the generator: as many in every run
    for seed in seeds:
        check_card_with_controls(out / f"experiment-seed{seed}", out / f"closed-book-seed{seed}", sentence)
    with pytest.raises(UserError, match=r"study is a study, .* such as .*experiment-seed0"):
        command("evaluate", out, "--passages", "1", status=1)
    command("train", "--resume", out)
    assert (out / "evidence.txt").read_text() == again


def check_card_with_controls(run: Path, control: Path, sentence: str) -> None:
    """Check that the cards of a study's experiment have the scores of its controls of the same seed."""
    card = (run / "model" / "README.md").read_text()
    assert "| score | value | 95 % interval | closed book | random neighbours | frozen retriever | oracle |" in card
    assert f"Over all seeds: {sentence}." in card
    scores, its = (json.loads((one / "scores.json").read_text())["answers"] for one in (run, control))
    name = next(iter(scores))
    assert f"| {name} | {scores[name]:.2f} | " in card
    row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
    assert row.split(" | ")[3] == f"{its[name]:.2f}"
    assert "Controls are missing" in (control / "model" / "README.md").read_text()


def contents(folder: Path) -> dict[str, bytes]:
    """What answers and their scores rest on."""
    return {
        str(path.relative_to(folder)): (
            untimed_lines(path).encode() if path.name == "metrics.jsonl" else path.read_bytes()
        )
        for path in sorted(folder.rglob("*"))
        if path.name in ("predictions.jsonl", "scores.json", "metrics.jsonl", "model.safetensors", "evidence.json")
        and "checkpoints" not in path.parts
    }


@pytest.mark.slow
def test_a_study_that_died_goes_on_where_it_was(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two runs, in the middle of one, and before one had written anything: it ends as one that never did."""
    experiment = Experiment.load(relations(tmp_path, tiny_encoder, tiny_seq2seq))
    whole = Study.begin(experiment, (0,), tmp_path / "whole")
    whole.train()
    begun = Study.begin(experiment, (0,), tmp_path / "died")
    real, calls = study_module.run_experiment, []

    def dies(*given: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("the power is gone")
        return real(*given)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(study_module, "run_experiment", dies)
    with pytest.raises(RuntimeError):
        begun.train()
    with pytest.raises(UserError, match=r"3 of the 5 runs of .*died have not ended \(random-neighbours-seed0 first\)"):
        command("evaluate", tmp_path / "died", status=1)
    kept = (tmp_path / "died" / "experiment-seed0" / "scores.json").stat().st_mtime_ns
    third, second = (tmp_path / "died" / f"{name}-seed0" for name in ("random-neighbours", "closed-book"))
    third.mkdir()
    (third / ".experiment.toml.1.tmp").touch()  # killed while it made its folder
    shutil.rmtree(second / "model")  # killed after its last step, before the model was written
    (second / "scores.json").unlink()
    command("train", "--resume", tmp_path / "died")
    command("evaluate", tmp_path / "whole")
    assert (tmp_path / "died" / "experiment-seed0" / "scores.json").stat().st_mtime_ns == kept
    assert contents(tmp_path / "died") == contents(tmp_path / "whole")


def test_what_cannot_be_compared_is_refused_before_anything_is_written(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    file, out = relations(tmp_path, tiny_encoder, tiny_seq2seq), tmp_path / "study"
    cases = [
        (["--controls", "--seeds", "0,0"], r"--seeds 0,0: expected distinct numbers with commas between"),
        (["--controls", "--seeds", "0,x"], r"--seeds 0,x: expected distinct numbers"),
        (["--seeds", "1"], r"--seeds 1 is for --controls; for one run with another seed: --set seed=1"),
        (["--controls", "--set", "data.test="], r"data\.test has 0; give it a file of at least 2"),
        (["--controls", "--set", "training.passages=7"], r"training\.passages is 7.*holds 6"),
        (
            ["--controls", "--seeds", "0,1", "--set", "data.test_count=3"],
            r"set data\.seed = 0, or data\.test_count = 0",
        ),
        (["--controls", "--resume", str(out)], r"leave out the recipe and all other options"),
    ]
    for words, message in cases:
        with pytest.raises(UserError, match=message):
            command("train", file, "--out", out, *words, status=1)
    assert not out.exists()
    with pytest.raises(UserError, match="is no study"):
        Study.open(tmp_path)


def test_a_folder_in_the_place_of_a_run_is_not_taken_for_it(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    experiment = Experiment.load(relations(tmp_path, tiny_encoder, tiny_seq2seq))
    study = Study.begin(experiment, (0,), tmp_path / "study")
    assert Study.open(study.path) == study
    run = study.runs[0]
    run.path.mkdir()
    (run.path / "experiment.toml").write_text(replace(run.experiment, seed=4).to_toml())
    with pytest.raises(UserError, match=r"experiment-seed0 is not the experiment of this study"):
        study.train()
    (study.path / "study.json").write_text("{}")
    with pytest.raises(UserError, match=r"study\.json is damaged"):
        Study.open(study.path)


@pytest.mark.slow
def test_the_demonstration_scores_as_compare_does(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It trains two of the controls, and what it prints is paired as theirs is; neighbours come first, a page last."""
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_seq2seq}"]
    small = ["data.train_count=20", "data.test_count=10", "warm_start.epochs=1", "training.precision=fp32"]
    rows = run_demo(tmp_path / "demo", 0, [*models, *small])
    folders = ("semeval-no-retrieval", "semeval-frozen", "semeval-joint")
    assert [path.name for path in sorted((tmp_path / "demo").iterdir())] == sorted(folders)
    found = compare(tmp_path / "demo" / folders[1], tmp_path / "demo" / folders[2], resamples=100)
    assert found.scores == pytest.approx([row.evaluation.answers["macro_f1"] for row in rows[1:]])
    assert [bool(row.evaluation.neighbours) for row in rows] == [False, True, True]
    assert not any(prediction.rows for prediction in rows[0].evaluation.predictions)
    out = capsys.readouterr().out
    joint, frozen, alone = (
        out.index(f"\n{name}\n") for name in ("jointly trained", "frozen retriever", "no retrieval")
    )
    assert joint < out.index("nearest, before:") < out.index("nearest, after:") < frozen < alone
    page = tmp_path / "demo" / "semeval-joint" / "report" / "report.html"
    assert str(page) in out
    text = page.read_text(encoding="utf-8")
    assert all(folder in text for folder in folders)
    assert "The vote of the run&#39;s neighbours, without a generator, scores" in text
    gain = found.scores[1] - found.scores[0]
    assert f"jointly trained against frozen retriever: {gain:+.1f} [" in out
    assert "jointly trained against no retrieval: " in out


def test_a_study_that_is_stopped_says_how_it_goes_on(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> object:
        raise Interrupted("after step 3 of training")

    file, out = relations(tmp_path, tiny_encoder, tiny_seq2seq), tmp_path / "my study"
    monkeypatch.setattr(study_module, "run_experiment", stopped)
    done = CliRunner().invoke(app, ["train", str(file), "--controls", "--out", str(out)])
    assert done.exit_code == 130
    assert "5 systems with 1 seed each are 5 runs" in done.stderr
    assert "frozen retriever: retriever.trained = " in done.stderr
    assert f"stopped after step 3 of training, saved; go on with: retrograd train --resume '{out}'" in done.stderr


@pytest.mark.parametrize(
    "plan",
    [
        {"seeds": ["x"], "systems": {"experiment": {}}, "left_out": {}},
        {"seeds": [], "systems": {"experiment": {}}, "left_out": {}},
        {"seeds": [0], "systems": {"experiment": {}, "../elsewhere": {}}, "left_out": {}},
        ["seeds"],
    ],
)
def test_a_plan_that_is_none_is_refused(plan: object, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(json.dumps(plan))
    with pytest.raises(UserError, match=r"study\.json is damaged; begin another"):
        Study.open(tmp_path)


def test_other_commands_name_a_run_of_a_study(tmp_path: Path) -> None:
    run = tmp_path / "study" / "experiment-seed0"
    run.mkdir(parents=True)
    (run / "experiment.toml").touch()
    for words in (["search", str(tmp_path / "study"), "tea"], ["lab", str(tmp_path / "study")]):
        failure = CliRunner().invoke(app, words).exception
        assert isinstance(failure, UserError)
        assert f"holds 1; give one of them, such as {run}" in str(failure)


def test_a_study_is_for_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="start it without torchrun"):
        train_or_resume("semeval-joint", tmp_path / "study", [], None, controls=True)
    assert not (tmp_path / "study").exists()
