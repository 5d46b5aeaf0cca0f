"""Choose the precision of an experiment: the one set, the one that its run recorded, or the faster one as measured."""

from __future__ import annotations

import torch
from transformers import PretrainedConfig

from retrograd.experiments.experiment import Experiment
from retrograd.models.compute.precision import PrecisionChoice, resolve_precision
from retrograd.models.compute.precision_cache import Work
from retrograd.models.compute.precision_probe import measure_seconds
from retrograd.models.loading.local_files import local_config
from retrograd.training.distributed.ranks import Ranks
from retrograd.types import UserError

__all__ = ["choose_precision"]

_USUAL_WIDTH = 768
"""Assumed width of a model whose configuration is not on this disk yet."""


def choose_precision(
    experiment: Experiment, device: torch.device, work: Work, recorded: PrecisionChoice | None = None
) -> PrecisionChoice:
    """Return the precision of ``training.precision`` for this work; ``auto`` takes what a run has ``recorded``.

    Of several processes the first one measures, once they have joined, and all compute as it does.
    """
    setting = experiment.training.precision
    if setting == "auto" and recorded is not None:
        return recorded
    ranks = Ranks()
    if setting != "auto" or ranks.count == 1:
        return resolve_precision(setting, device, work, _width(experiment, work), measure_seconds)
    choice = PrecisionChoice("fp32")
    if ranks.first:
        choice = resolve_precision(setting, device, work, _width(experiment, work), measure_seconds)
    chosen_bf16 = bool(ranks.broadcast(int(choice.precision == "bf16")))
    return choice if ranks.first else PrecisionChoice("bf16" if chosen_bf16 else "fp32")


def _width(experiment: Experiment, work: Work) -> int:
    """Return the width of the model that does most of the work: the generator trains, the encoder encodes."""
    name = experiment.generator.model if work == "training" else experiment.retriever.model
    try:
        config = local_config(name)
    except UserError:  # opening the model reports what is wrong with it
        config = None
    return _USUAL_WIDTH if config is None else _hidden_size(config)


def _hidden_size(config: PretrainedConfig) -> int:
    """Return the width of a hidden state; of an encoder-decoder made of two models, that of its encoder."""
    own = config.to_dict()
    size = getattr(config, "hidden_size", None) or (own.get("encoder") or {}).get("hidden_size")
    return size if isinstance(size, int) and size > 0 else _USUAL_WIDTH
