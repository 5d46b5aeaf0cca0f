"""Open a finished run, ready to answer, or the model that a run would begin with."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from retrograd.experiments.build import build_model, derive_model_settings
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import compute_for
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.rag.index_source import IndexSource
from retrograd.rag.rag_model import RagModel
from retrograd.rag.staleness import describe_index_fault
from retrograd.tasks.task import Task
from retrograd.training.refresh.fresh_index import embed_base_if_stale
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.progress import say
from retrograd.util.text_files import read_json

__all__ = ["OpenRun", "open_run", "open_untrained", "read_run_task"]


@dataclass(frozen=True)
class OpenRun:
    """A finished run, ready to answer.

    It needs nothing outside its folder but, for ``data``, the files it names, and the index that it was given.
    """

    experiment: Experiment
    model: RagModel
    task: Task

    @cached_property
    def data(self) -> Data:
        """Read the experiment's data, in the words of the run's task, when they are first asked for.

        Raises `UserError` where files are gone or differ.
        """
        return self.experiment.data.load(self.experiment.seed, self.task)


def open_run(path: Path) -> OpenRun:
    """Open what `run_experiment` wrote. An index that is missing is built anew; one that was given is opened again.

    Raises `UserError` for a folder that is no run, or whose parts do not fit: data, encoder and index.
    """
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    task = read_run_task(experiment, run)
    compute = compute_for(experiment, run=run)
    base, name = KnowledgeBase.open(run.base), experiment.generator.model
    answering = derive_model_settings(experiment).answering
    source = IndexSource(experiment.index)
    model = RagModel.load(run.model, task, base, name, compute.device, compute.precision, answering, source).eval()
    _require_index(model, run.model / "index")
    return OpenRun(experiment, model, task)


def open_untrained(experiment: Experiment, data: Data) -> RagModel:
    """Return the model that a run of an experiment would begin with, on the device and in the precision that it would
    have.
    """
    compute = compute_for(experiment)
    model = build_model(experiment, data, torch.Generator().manual_seed(experiment.seed), compute.precision)
    return model.to(compute.device)


def _require_index(model: RagModel, folder: Path) -> None:
    """Build a missing index. Raises `UserError` for one that does not hold its passages' embeddings."""
    if not model.needs_index:
        return
    if not model.has_index:
        if model.index_source.copies_index:
            say(f"{folder} does not exist; embedding the {len(model.base)} passages of the base anew")
        embed_base_if_stale(model)
        return
    fault = describe_index_fault(model)
    if fault is not None:
        raise UserError(f"{folder} is damaged: {fault}; remove the folder, and the base is embedded anew")


def read_run_task(experiment: Experiment, run: RunDirectory) -> Task:
    """Return the task of a run, with the labels, their words and the type constraints it was trained with."""
    return experiment.data.task_from_record(read_json(run.labels), str(run.labels))
