"""A run that was stopped and goes on ends as one that never was: every file of it, byte for byte."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from retrograd.recipes.experiment import Experiment
from retrograd.recipes.run import resume_run, run_experiment
from retrograd.training.checkpoints import Checkpoints
from retrograd.training.interrupts import Interrupted, Interrupts
from retrograd.types import UserError


KINDS = ("full", "lora", "chains")

_PASSAGES = [
    (f"p{i}", f"{thing} {i}", f"the {thing} number {10 + i} holds tea from the box .")
    for i, thing in enumerate(["cup", "box"] * 4)
]


def _lines(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def tiny(kind: str, data: Path, models: dict[str, Path], *changes: str) -> Experiment:
    """A few steps of two or more stages, dropout on; its files go to ``data``.

    "full" trains all weights, refreshes by drift and is judged while it trains; "lora" trains adapters and refreshes
    every two steps; "chains" is JSA with carried chains over sampled answers, masked sentences first, a second stage last.
    """
    data.mkdir(exist_ok=True)
    both = ["training.precision=fp32", "training.batch_size=4", "training.log_every=1", "training.save_every=2"]
    both += [f"retriever.model={models['encoder']}", "training.passages=2", "training.probe_passages=4"]
    both += ["training.retriever_learning_rate=1e-2", "training.generator_learning_rate=1e-2"]
    if kind == "chains":
        return _questions(data).with_settings([*both, f"generator.model={models['seq2seq']}", *_CHAINS, *changes])
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
    }
    return Experiment().with_settings([*files, *both, *own[kind], *changes])


_FULL = [
    "warm_start.epochs=1", "warm_start.batch_size=4", "training.epochs=2", "training.refresh=drift",
    "training.refresh_drift=1e-4", "training.refresh_every=2", "retriever.learn_temperature=true",
    "training.evaluate_every=2", "evaluation.calibrate=true", "training.schedule=cosine",
]  # fmt: skip
_LORA = ["generator.lora_rank=2", "generator.lora_dropout=0.1", "warm_start.epochs=0", "training.epochs=2"]
_LORA += ["training.refresh_every=2", "training.tail=1", "training.distraction=0.3", "retriever.trained=both"]
_CHAINS = [
    "objective.kind=JointStochasticApproximation", "objective.sampler=metropolis", "objective.draws=2",
    "retriever.posterior=true", "retriever.null_passage=true", "warm_start.epochs=0", "masking.epochs=1",
    "training.epochs=3", "training.targets=sampled", "training.prior_only=0.3", "training.refresh=retrieved",
    "training.refresh_every=1", "training.refresh_window=2", "training.micro_batch=3", "second_stage.epochs=1",
    "generator.max_target_tokens=4",
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
    """All that a run writes, by name, but for its checkpoints and the machine it ran on."""
    return {
        str(path.relative_to(run)): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and "checkpoints" not in path.parts and path.name != "environment.json"
    }


def differing(run: Path, other: Path) -> list[str]:
    """Names of files that differ, or that one of the runs has alone."""
    ours, theirs = contents(run), contents(other)
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


@pytest.fixture(scope="session")
def models(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path) -> dict[str, Path]:
    return {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal}


@pytest.fixture(scope="session")
def whole(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of each kind a run that nobody stopped; its data lie beside it."""
    runs = {}
    for kind in KINDS:
        folder = tmp_path_factory.mktemp(kind)
        runs[kind] = run_experiment(tiny(kind, folder / "data", models), folder / "run").path
    return runs


def steps_of(run: Path) -> int:
    return len({(line["stage"], line["step"]) for line in metrics(run)})


def metrics(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


class Crash(Exception):
    """Whatever ends a process."""


def crashing(monkeypatch: pytest.MonkeyPatch, step: int, stop: BaseException | Interrupts) -> None:
    """Have the ``step``-th step of all stages end in a crash, or somebody ask to stop in it."""
    made: list[int] = []
    real = Checkpoints.after_step

    def after_step(self: Checkpoints, *arguments: object) -> None:
        made.append(1)
        if len(made) == step and isinstance(stop, Interrupts):
            stop.asked = True
        real(self, *arguments)
        if len(made) == step and isinstance(stop, BaseException):
            raise stop

    monkeypatch.setattr(Checkpoints, "after_step", after_step)


@pytest.mark.parametrize("kind", KINDS)
def test_it_may_stop_after_any_step(
    kind: str, whole: dict[str, Path], models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a crash, which leaves what was saved every two steps, and by being asked, which saves."""
    steps = steps_of(whole[kind])
    assert steps >= 6
    for step in range(1, steps + 1):
        for stop in (Crash(), Interrupts()):
            out = tmp_path / f"{step}-{type(stop).__name__}"
            experiment = tiny(kind, whole[kind].parent / "data", models)
            with monkeypatch.context() as patched:
                crashing(patched, step, stop)
                with pytest.raises((Crash, Interrupted)):
                    run_experiment(experiment, out, stop if isinstance(stop, Interrupts) else None)
            random.seed(step)  # another process has others
            np.random.seed(step)  # noqa: NPY002
            torch.manual_seed(step)
            resume_run(out)
            assert differing(out, whole[kind]) == [], (step, stop)
            shutil.rmtree(out)
