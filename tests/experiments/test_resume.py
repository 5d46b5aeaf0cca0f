"""A run that was stopped and goes on ends as one that never was: every file of it, byte for byte."""

from __future__ import annotations

import errno
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tests.untimed import untimed_lines
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.experiments import run as run_module
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.training import loop
from retrograd.training.run import checkpoints as checkpoints_module
from retrograd.training.run import seal as seal_module
from retrograd.training.run.checkpoints import Checkpoints
from retrograd.training.run.interrupts import Interrupted, Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.saved_state import save_run_state
from retrograd.training.run.seal import seal
from retrograd.types import UserError
from retrograd.util.files import lock_folder

pytestmark = pytest.mark.slow

KINDS = ("full", "lora", "chains", "apart", "resting")

_PASSAGES = [
    (f"p{i}", f"{thing} {i}", f"the {thing} number {10 + i} holds tea from the box .")
    for i, thing in enumerate(["cup", "box"] * 4)
]


def _lines(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def tiny(kind: str, data: Path, models: dict[str, Path], *changes: str) -> Experiment:
    """Return an experiment of a few steps of two or more stages, dropout on; its files go to ``data``.

    "full" trains all weights, refreshes by drift and is judged while it trains; "lora" trains adapters and refreshes
    every two steps; "chains" is JSA with carried chains over sampled answers, masked sentences first, a second stage
    last; "apart" the same with passage embeddings of the posterior's own; "resting" has the retriever learn alone.
    """
    data.mkdir(exist_ok=True)
    both = ["training.precision=fp32", "training.batch_size=4", "training.log_every=1", "training.save_every=2"]
    both += [f"retriever.model={models['encoder']}", "training.passages=2", "training.probe_passages=4"]
    both += ["training.retriever_learning_rate=1e-2", "training.generator_learning_rate=1e-2"]
    if kind in ("chains", "apart"):
        own = ["retriever.posterior_passages=own"] * (kind == "apart")
        return _questions(data).with_settings([*both, f"generator.model={models['seq2seq']}", *_CHAINS, *own, *changes])
    instances = [
        {
            "text": f"the {thing} holds tea number {i} .",
            "head": [4, 4 + len(thing)],
            "tail": [len(thing) + 11, len(thing) + 14],
            "relation": ("holds", "part of")[i % 2],
        }
        for i, thing in enumerate(["cup", "box", "car"] * 3)
    ]
    train, dev = _lines(data / "train.jsonl", instances), _lines(data / "dev.jsonl", instances[:3])
    files = [f"data.train={train}", f"data.dev={dev}", f"data.test={dev}", "data.labels=from_train"]
    own = {
        "full": [f"generator.model={models['seq2seq']}", *_FULL],
        "lora": [f"generator.model={models['causal']}", *_LORA],
        "resting": [f"generator.model={models['causal']}", *_RESTING],
    }
    return Experiment().with_settings([*files, *both, *own[kind], *changes])


_FULL = [
    "warm_start.epochs=1", "warm_start.batch_size=4", "training.epochs=2", "training.refresh=drift",
    "training.refresh_drift=1e-4", "training.refresh_every=2", "retriever.learn_temperature=true",
    "training.evaluate_every=2", "evaluation.calibrate=true", "training.schedule=cosine",
]  # fmt: skip
_LORA = ["generator.lora_rank=2", "generator.lora_dropout=0.1", "warm_start.epochs=0", "training.epochs=2"]
_LORA += ["training.refresh_every=2", "training.tail=1", "training.distraction=0.3", "retriever.trained=both"]
_RESTING = ["objective.kind=Distillation", "objective.reader=none", "warm_start.epochs=0", "training.epochs=3"]
_RESTING += ["training.refresh_every=2"]
_CHAINS = [
    "objective.kind=JointStochasticApproximation", "objective.sampler=metropolis", "objective.draws=2",
    "retriever.posterior=true", "retriever.null_passage=true", "warm_start.epochs=0", "masking.epochs=1",
    "training.epochs=3", "training.targets=sampled", "training.prior_only=0.3", "training.refresh=retrieved",
    "training.refresh_every=1", "training.refresh_window=2", "training.micro_batch=3", "second_stage.epochs=1",
    "generator.max_target_tokens=4", "retriever.lexical_dimensions=8"
]  # fmt: skip


def _questions(data: Path) -> Experiment:
    base = _lines(data / "base.jsonl", [{"id": i, "title": title, "text": text} for i, title, text in _PASSAGES])
    asked = [
        {"id": f"q{i}", "question": f"what holds tea ? number {i}", "answers": ["cup", "box", "the cup"]}
        for i in range(6)
    ]
    found = _lines(data / "asked.jsonl", asked)
    files = [f"data.base={base}", f"data.train={found}", f"data.test={found}"]
    return Experiment().with_settings(["data.kind=questions", *files])


def contents(run: Path) -> dict[str, bytes]:
    """Return all that a run writes, by name, except its checkpoints and the machine it ran on."""
    return {
        str(path.relative_to(run)): _settled(path)
        for path in sorted(run.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts and path.name != "environment.json"
    }


def _settled(path: Path) -> bytes:
    """A file's bytes, but for what says nothing: how a tokenizer last padded and cut, which it keeps, and the order in
    which peft names the modules with adapters, which are a set; and the times of the log."""
    if path.name == "metrics.jsonl":
        return untimed_lines(path).encode()
    if path.name not in ("tokenizer.json", "adapter_config.json"):
        return path.read_bytes()
    found = json.loads(path.read_text()) | {"truncation": None, "padding": None}
    return json.dumps(found | {"target_modules": sorted(found.get("target_modules", []))}).encode()


def differing(run: Path, other: Path) -> list[str]:
    """Return names of files that differ, or that only one of the runs has."""
    ours, theirs = contents(run), contents(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


CARDS = ["model/README.md", "model/generator/README.md", "model/retriever/query/README.md"]
WITH_SETTINGS = ["experiment.toml", *CARDS]
"""The files of a run that name its settings, and nothing else that could differ."""


@pytest.fixture(scope="session")
def models(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path) -> dict[str, Path]:
    return {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal}


@pytest.fixture(scope="session")
def whole(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Train a run of each kind that nobody stops; its data lie beside it."""
    runs = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        runs[kind] = run_experiment(tiny(kind, folder / "data", models), folder / "run").path
    return runs


def steps_of(run: Path) -> int:
    return len({(line["stage"], line["step"]) for line in metrics(run)})


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class CrashError(Exception):
    """Stands for whatever ends a process."""


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], None], before: bool = True) -> None:
    """Have something happen before (or after) the ``step``-th step of all stages is looked at for saving."""
    made: list[int] = []
    real = Checkpoints.after_step

    def after_step(self: Checkpoints, *arguments: object) -> None:
        made.append(1)
        if before and len(made) == step:
            do()
        real(self, *arguments)
        if not before and len(made) == step:
            do()

    monkeypatch.setattr(Checkpoints, "after_step", after_step)


def crash() -> None:
    raise CrashError


def crashed(experiment: Experiment, out: Path, step: int) -> Path:
    """Return the folder of a run that ended after so many steps, just after whatever was to be saved."""
    with pytest.MonkeyPatch.context() as patched:
        at_step(patched, step, crash, before=False)
        with pytest.raises(CrashError):
            run_experiment(experiment, out)
    random.seed(step)  # another process has others
    np.random.seed(step)  # noqa: NPY002
    torch.manual_seed(step)
    return out


@pytest.fixture
def what(whole: dict[str, Path], models: dict[str, Path]) -> Callable[..., Experiment]:
    """Return the experiment of a kind, on the data of the run that nobody stopped."""
    return lambda kind, *changes: tiny(kind, whole[kind].parent / "data", models, *changes)


@pytest.fixture(scope="session")
def crashed_lora(whole: dict[str, Path], models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of adapters that ended after step 4, with two checkpoints; `copied` gives a test its own."""
    return crashed(tiny("lora", whole["lora"].parent / "data", models), tmp_path_factory.mktemp("crashed") / "run", 4)


@pytest.fixture
def copied(crashed_lora: Path, tmp_path: Path) -> Path:
    shutil.copytree(crashed_lora, tmp_path / "run")
    return tmp_path / "run"


def test_the_runs_have_what_must_be_gone_on_with(whole: dict[str, Path]) -> None:
    """The tests below would prove nothing otherwise."""
    for kind in KINDS:
        assert steps_of(whole[kind]) >= 6
    full = metrics(whole["full"])
    ages = [line["index_age"] for line in full if line["stage"] == "training" and "index_age" in line]
    assert any(later <= earlier for earlier, later in pairwise(ages)), "the index was never refreshed"
    bests = [line["best_micro_f1"] for line in full if "best_micro_f1" in line]
    assert bests == sorted(bests)
    assert bests[-1] == max(line["micro_f1"] for line in full if "micro_f1" in line)
    chains = metrics(whole["chains"])
    assert list(dict.fromkeys(line["stage"] for line in chains)) == ["masking", "training", "second stage"]
    assert (whole["chains"] / "chains" / "training.safetensors").exists()
    assert sum("visits_of_target_2" in line for line in chains) == 2


@pytest.mark.parametrize(("kind", "step"), [("full", 4), ("lora", 3), ("chains", 5), ("apart", 5), ("resting", 4)])
def test_a_run_that_crashed_ends_as_one_that_never_did(
    kind: str, step: int, whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path
) -> None:
    out = crashed(what(kind), tmp_path / "run", step)
    with pytest.raises(UserError, match="go on with it: retrograd train --resume"):
        open_run(out)
    resume_run(out)
    assert differing(out, whole[kind]) == []


def request(interrupts: Interrupts) -> None:
    """Ask training to stop, as the handler of a signal does."""
    interrupts.is_requested = True


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_it_may_stop_after_any_step(
    kind: str, whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path
) -> None:
    """It stops by a crash, which leaves what was saved every two steps, or on request, which saves."""
    for step in range(1, steps_of(whole[kind]) + 1):
        out = crashed(what(kind), tmp_path / f"{step}", step)
        resume_run(out)
        assert differing(out, whole[kind]) == [], step
        shutil.rmtree(out)
        interrupts = Interrupts()
        with pytest.MonkeyPatch.context() as patched:
            at_step(patched, step, partial(request, interrupts))
            with pytest.raises(Interrupted, match=r"after step \d+ of"):
                run_experiment(what(kind), out, interrupts)
        resume_run(out)
        assert differing(out, whole[kind]) == [], step
        shutil.rmtree(out)


# ---- saving changes nothing ------------------------------------------------------------------------------------------


def test_checkpoints_change_nothing(whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path) -> None:
    """Checkpoints are written by steps, by the clock at every step, or never."""
    for changes in (["training.save_every=0"], ["training.save_every=0", "training.save_minutes=1e-9"]):
        run = run_experiment(what("full", *changes), tmp_path / changes[-1])
        assert differing(run.path, whole["full"]) == WITH_SETTINGS
        assert len(run.checkpoints()) == (2 if "save_minutes" in changes[-1] else 0)


def test_a_full_disk_ends_no_training_that_only_the_clock_would_save(
    what: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(checkpoints_module, "say", said.append)

    def full(*what: Any) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))  # which safetensors meets as it meets a full disk
        try:
            save_run_state(*what)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    monkeypatch.setattr(checkpoints_module, "save_run_state", full)
    quick = ["training.save_minutes=1e-9", "training.epochs=1"]
    assert run_experiment(what("lora", "training.save_every=0", *quick), tmp_path / "run").has_ended
    assert "File too large" in said[0]
    with pytest.raises(UserError, match=r"File too large.*make room.*--resume"):
        run_experiment(what("lora", "training.save_every=1", *quick), tmp_path / "other")


def test_a_checkpoint_leaves_the_frozen_weights_of_a_generator_with_adapters_out(
    what: Callable[..., Experiment], tmp_path: Path
) -> None:
    out = crashed(what("lora"), tmp_path / "run", 2)
    (folder,) = RunDirectory.open(out).checkpoints()
    names = load_file(folder / "weights.safetensors").keys()
    assert any(".lora_A." in name for name in names)
    # Buffers are there, too; weights under adapters are not.
    assert not any(name.startswith("generator.") and name.endswith("base_layer.weight") for name in names)
    assert not list((folder / "generator").glob("model*.safetensors"))


# ---- damage ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["cut", "metrics"])
def test_a_damaged_checkpoint_is_found_out_and_the_one_before_it_is_used(
    how: str,
    whole: dict[str, Path],
    what: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = crashed(what("full"), tmp_path / "run", 8)
    newest, older = RunDirectory.open(out).checkpoints()
    if how == "cut":
        weights = newest / "weights.safetensors"
        weights.write_bytes(weights.read_bytes()[:-7])
    else:
        lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
        (out / "metrics.jsonl").write_text("".join(lines[:-3]))
    said: list[str] = []
    monkeypatch.setattr(checkpoints_module, "say", said.append)
    resume_run(out)
    assert (f"{newest} is damaged" if how == "cut" else f"shorter than when {newest} was saved") in said[0]
    assert "the one before it is used" in said[0]
    assert str(older) in said[1]
    assert differing(out, whole["full"]) == []


def test_a_checkpoint_that_may_not_be_read_is_not_thrown_away(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint on a share that is not mounted is kept too."""

    def away(path: Path) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    with monkeypatch.context() as patched:
        patched.setattr(seal_module, "sha256_of", away)
        with pytest.raises(PermissionError):
            resume_run(copied)
    assert len(RunDirectory.open(copied).checkpoints()) == 2
    (newest, _) = RunDirectory.open(copied).checkpoints()
    mask = os.umask(0)
    os.umask(mask)
    assert all(path.stat().st_mode & 0o777 == 0o666 & ~mask for path in newest.glob("*.safetensors"))


def test_sound_checkpoints_are_never_thrown_away_for_a_lost_log(copied: Path) -> None:
    (copied / "metrics.jsonl").unlink()
    with pytest.raises(UserError, match=r"metrics\.jsonl has lost lines .* put it"):
        resume_run(copied)
    assert len(RunDirectory.open(copied).checkpoints()) == 2


def test_without_a_sound_checkpoint_training_begins_anew(
    whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = crashed(what("chains"), tmp_path / "run", 7)
    for folder in RunDirectory.open(out).checkpoints():
        (folder / "manifest.json").write_text("{}")
    said: list[str] = []
    monkeypatch.setattr(checkpoints_module, "say", said.append)
    resume_run(out)
    assert "training begins anew" in said[-1]
    assert differing(out, whole["chains"]) == []


@pytest.mark.parametrize("name", ["weights", "optimiser", "random", "stage"])
def test_nothing_but_safetensors_is_ever_loaded(name: str, copied: Path) -> None:
    """A pickle is refused even where the manifest lists it."""
    newest = RunDirectory.open(copied).checkpoints()[0]
    (newest / f"{name}.safetensors").write_bytes(pickle.dumps({"weight": [1.0]}))
    (newest / "manifest.json").unlink()
    seal(newest)
    with pytest.raises(UserError, match=rf"{name}\.safetensors is not a safetensors file"):
        resume_run(copied)


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_run_that_ended_is_left_as_it_is(whole: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole["lora"], out)
    before = {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.rglob("*")}
    done = CliRunner().invoke(app, ["train", "--resume", str(out)])
    assert done.exit_code == 0
    assert {path: (path.stat().st_mtime_ns, path.stat().st_size) for path in out.rglob("*")} == before


def test_what_is_not_as_the_run_began_is_refused(
    whole: dict[str, Path], models: dict[str, Path], tmp_path: Path
) -> None:
    experiment = tiny("lora", tmp_path / "data", models)
    out = crashed(experiment, tmp_path / "run", 3)
    file, train = out / "experiment.toml", tmp_path / "data" / "train.jsonl"
    asked, lines = file.read_text(), train.read_text()
    file.write_text(asked.replace("batch_size = 4", "batch_size = 3"))
    with pytest.raises(UserError, match=r"has changed since .* put it back"):
        resume_run(out)
    file.write_text(asked)
    train.write_text(lines.replace("holds tea number 0", "holds cup number 0"))
    with pytest.raises(UserError, match=r"changed since the run began"):
        resume_run(out)
    train.write_text(lines)
    with lock_folder(out), pytest.raises(UserError, match="another process is at work"):
        resume_run(out)
    shutil.rmtree(RunDirectory.open(out).checkpoints()[0] / "retriever")
    with pytest.raises(UserError, match="choose another folder"):
        run_experiment(experiment, out)


@pytest.mark.parametrize("words", [["semeval-joint"], ["--out", "other"], ["--set", "seed=1"]])
def test_what_to_resume_says_itself_what_to_do(words: list[str]) -> None:
    failure = CliRunner().invoke(app, ["train", "--resume", "runs/x", *words]).exception
    assert isinstance(failure, UserError)
    assert "leave out the recipe and all other options" in str(failure)


def test_there_must_be_something_to_train(tmp_path: Path) -> None:
    failure = CliRunner().invoke(app, ["train"]).exception
    assert isinstance(failure, UserError)
    assert "--resume RUN" in str(failure)
    failure = CliRunner().invoke(app, ["train", "--resume", str(tmp_path)]).exception
    assert "is not a run" in str(failure)


# ---- interrupts ------------------------------------------------------------------------------------------------------


def started(experiment: Experiment, out: Path) -> tuple[int, str]:
    """Return the exit code and the output of ``retrograd train``."""
    file = out.with_suffix(".toml")
    file.write_text(experiment.to_toml(), encoding="utf-8")
    done = CliRunner().invoke(app, ["train", str(file), "--out", str(out)])
    return done.exit_code, done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_one_signal_lets_the_step_finish_and_saves(
    number: signal.Signals,
    whole: dict[str, Path],
    what: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before, out = signal.getsignal(number), tmp_path / "run"
    at_step(monkeypatch, 5, lambda: signal.raise_signal(number))
    code, words = started(what("chains", "training.save_every=0"), out)
    assert code == 130
    said = f"stopped after step 3 of training, saved; go on with: retrograd train --resume {out}"
    assert words.splitlines()[-1] == f"retrograd: {said}"
    assert signal.getsignal(number) is before
    resume_run(out)
    assert differing(out, whole["chains"]) == WITH_SETTINGS


@pytest.mark.parametrize(
    ("place", "name", "call"), [(loop, "embed_base", 1), (run_module, "evaluate", 4), (run_module, "calibrate", 1)]
)
def test_who_stops_between_stages_or_after_them_loses_none(
    place: ModuleType,
    name: str,
    call: int,
    whole: dict[str, Path],
    what: Callable[..., Experiment],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The run is stopped while the base is embedded, in the test at the end, or while a decision is fitted."""
    calls: list[int] = []
    real = getattr(place, name)

    def stopped(*arguments: object) -> object:
        calls.append(1)
        if len(calls) == call:
            signal.raise_signal(signal.SIGINT)
        return real(*arguments)

    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        patched.setattr(place, name, stopped)
        code, words = started(what("full", "training.save_every=0"), out)
    assert code == 130
    assert f"stopped with {1 if place is loop else 2} stages finished, saved; go on" in words
    made = metrics(out)
    resume_run(out)
    assert differing(out, whole["full"]) == WITH_SETTINGS
    assert metrics(out)[: len(made)] == made


def test_a_second_signal_stops_at_once(
    what: Callable[..., Experiment], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    at_step(monkeypatch, 3, twice)
    code, words = started(what("lora"), tmp_path / "run")
    assert code == 130
    assert "stopped at once; what came after the last checkpoint, if there is one, is lost; go on with" in words
    assert [path.name for path in RunDirectory.open(tmp_path / "run").checkpoints()] == ["0001-training-step-0000002"]


@pytest.mark.parametrize("signals", [1, 2])
def test_a_process_that_is_told_to_stop_does(
    signals: int, whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path
) -> None:
    out, file = tmp_path / "run", tmp_path / "asked.toml"
    file.write_text(what("full", "training.save_every=0").to_toml(), encoding="utf-8")
    words = [sys.executable, "-m", "retrograd", "train", str(file), "--out", str(out)]
    # As many threads as here: sums of another number of threads may differ in their last bit.
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=os.environ | threads) as process:
        while not (out / "metrics.jsonl").exists():
            assert process.poll() is None
            time.sleep(0.001)
        process.send_signal(signal.SIGINT)
        if signals == 2:
            process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=300)
    assert process.returncode == 130
    assert said.splitlines()[-1].endswith(f"go on with: retrograd train --resume {out}")
    assert ("at once" in said.splitlines()[-1]) == (signals == 2)
    resume_run(out)
    assert differing(out, whole["full"]) == WITH_SETTINGS


# ---- a killed process ------------------------------------------------------------------------------------------------

PLACES = [
    "retrograd.training.run.run_directory:seal:2", "retrograd.training.run.saved_state:save_file:7",
    "retrograd.rag.index_source:build_index:3", "retrograd.training.run.run_directory:RagModel.save:4",
    "retrograd.experiments.run:calibrate:1", "retrograd.experiments.run:evaluate:4", "retrograd.util.files:os.fsync:9",
]  # fmt: skip

IN_FULL_ALONE = PLACES[4:6]
"""The others fit no decision, and are scored once."""


def killed(experiment: Experiment, folder: Path, *kills: str) -> str:
    """Have another process train into ``folder/run``, be killed as ``kills`` say, and go on each time, to the end."""
    file = folder / "asked.toml"
    file.write_text(experiment.to_toml(), encoding="utf-8")
    script = Path(__file__).with_name("killed_training.py")
    words = [sys.executable, str(script), str(file), str(folder / "run"), *kills]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_killed_run_goes_on_to_the_same_end(
    whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path
) -> None:
    """The run is killed in a refresh, in a save and at a random moment."""
    said = killed(what("full"), tmp_path, PLACES[2], PLACES[0], "moment:0.5")
    assert said.count("killed") >= 2, said
    assert differing(tmp_path / "run", whole["full"]) == []


@pytest.mark.sweep
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_killed_anywhere_goes_on_to_the_same_end(
    kind: str, whole: dict[str, Path], what: Callable[..., Experiment], tmp_path: Path
) -> None:
    """Kills come wherever something is written or computed, then at seven random moments a kind, 21 in all."""
    for place in PLACES:
        folder = tmp_path / place.replace(":", "-")
        folder.mkdir()
        is_reached = kind == "full" or place not in IN_FULL_ALONE
        assert ("killed" in killed(what(kind), folder, place)) == is_reached, place
        assert differing(folder / "run", whole[kind]) == [], place
    for seed, times in enumerate((4, 3)):
        rng = random.Random(f"{kind} {seed}")
        moments = [f"moment:{rng.uniform(0.02, 0.9):.3f}" for _ in range(times)]
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        sys.stdout.write(f"{kind} {seed}: {killed(what(kind), folder, *moments)}")
        assert differing(folder / "run", whole[kind]) == [], (kind, seed, moments)


# ---- deterministic ---------------------------------------------------------------------------------------------------


def test_a_deterministic_run_is_the_same_twice(what: Callable[..., Experiment], tmp_path: Path) -> None:
    asked = what("lora", "training.deterministic=true", "training.epochs=1")
    first, again = (run_experiment(asked, tmp_path / name).path for name in "ab")
    assert differing(first, again) == []
    assert not torch.are_deterministic_algorithms_enabled()


def test_what_depends_on_the_clock_is_not_deterministic() -> None:
    with pytest.raises(UserError, match=r'refresh = "every"'):
        Experiment().with_settings(["training.deterministic=true", "training.refresh=background"])
