"""The laboratory along a run: the same batch at each checkpoint that was kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.experiments.build import build_model
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import OpenRun, read_run_task
from retrograd.experiments.run import compute_for
from retrograd.studies.laboratory.lab import LabReport, choose_estimators, draw_examples, measure_estimators
from retrograd.training.refresh.fresh_index import embed_base_if_stale
from retrograd.training.run.checkpoints import read_progress
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.saved_state import load_model_state
from retrograd.training.run.seal import find_flaw
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.text_files import write_json

__all__ = ["Moment", "run_laboratory_along"]


@dataclass(frozen=True)
class Moment:
    """Results of the laboratory after ``step`` optimiser steps of ``stage``; step 0 is between two stages."""

    stage: str
    step: int
    report: LabReport

    @property
    def name(self) -> str:
        return f"{self.stage} {self.step}" if self.step else self.stage

    def record(self) -> JsonObject:
        """Return the results as JSON."""
        return {"stage": self.stage, "step": self.step, **self.report.record()}


def run_laboratory_along(
    path: Path, names: Sequence[str], queries: int, redraws: int, out: Path, seed: int
) -> list[Moment]:
    """Measure at every checkpoint of a run, the oldest first; with ``save_every`` there is one at each stage's end.

    Batch, draws and estimators are the same each time. Writes ``lab-along.json`` into ``out``. Raises `UserError` for a
    run without sound checkpoints, and as `run_laboratory` does.
    """
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    selected = choose_estimators(experiment, names)
    data = experiment.data.load(experiment.seed, read_run_task(experiment, run))
    examples, moments = draw_examples(data.train, queries, seed), []
    for stage, step, opened in _moments(run, experiment, data):
        say(f"{stage} {step}".removesuffix(" 0"))
        moments.append(Moment(stage, step, measure_estimators(opened, examples, selected, redraws, seed)))
        write_json(out / "lab-along.json", {"moments": [moment.record() for moment in moments]})
    return moments


def _moments(run: RunDirectory, experiment: Experiment, data: Data) -> Iterator[tuple[str, int, OpenRun]]:
    """Yield stage, step and model, one after the other; a model is valid until the next is requested."""
    folders = [folder for folder in reversed(run.checkpoints()) if _sound(folder)]
    if not folders:
        raise UserError(
            f"{run.path} keeps no checkpoint to measure; train with training.save_every = 20, say, and "
            f"training.keep_checkpoints = 0, which keeps all"
        )
    compute, rng = compute_for(experiment, run=run), torch.Generator().manual_seed(experiment.seed)
    model = build_model(experiment, data, rng, compute.precision).to(compute.device)
    for folder in folders:
        load_model_state(folder, model)
        embed_base_if_stale(model.eval())
        progress = read_progress(folder)
        stage = progress.stage or f"after {progress.finished} stages"
        yield stage, progress.step, OpenRun(experiment, model, data.task)


def _sound(folder: Path) -> bool:
    flaw = find_flaw(folder)
    if flaw is not None:
        say(f"{folder} is damaged ({flaw}): it is left out")
    return flaw is None
