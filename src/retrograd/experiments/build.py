"""Build the model that a run begins with, from the settings that its experiment has."""

from __future__ import annotations

import torch

from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.models.settings import ComputePrecision
from retrograd.rag.answers.answering import Answering
from retrograd.rag.index_source import IndexSource
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.rag_model import RagModel
from retrograd.training.run.run_directory import RunDirectory

__all__ = ["build_model", "derive_model_settings", "open_first_model"]


def derive_model_settings(experiment: Experiment) -> ModelSettings:
    """Return the settings of the model that an experiment trains, and of how it answers afterwards."""
    answering = Answering(
        experiment.manner,
        experiment.selection,
        passages=experiment.test_passages,
        scoring=experiment.evaluation.scoring,
    )
    return ModelSettings(
        experiment.retriever, experiment.generator, experiment.soft_prompt, answering, experiment.data.embeds_labels
    )


def build_model(
    experiment: Experiment,
    data: Data,
    rng: torch.Generator,
    precision: ComputePrecision = "fp32",
    sharded: bool = False,
) -> RagModel:
    """Build the untrained model of an experiment, as `RagModel.build` does."""
    settings, source = derive_model_settings(experiment), IndexSource(experiment.index)
    return RagModel.build(
        settings, data.task, data.base, rng, precision=precision, sharded=sharded, index_source=source
    )


def open_first_model(
    experiment: Experiment,
    data: Data,
    run: RunDirectory,
    rng: torch.Generator,
    precision: ComputePrecision,
    sharded: bool,
) -> RagModel:
    """Return the model that a run from Python began with, where it keeps one, else a new one."""
    if not run.start.exists():
        return build_model(experiment, data, rng, precision, sharded)
    answering = derive_model_settings(experiment).answering
    name = experiment.generator.model
    source = IndexSource(experiment.index)
    model = RagModel.load(
        run.start, data.task, data.base, name, precision=precision, answering=answering, index_source=source
    )
    model.use_answering(answering)  # the folder has how the model answered before `rg.train` got it
    return model
