"""Run a model without changing it: without gradient, dropout, or a published model's own generation settings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import nn
from transformers import GenerationConfig
from transformers.modeling_outputs import BaseModelOutput

__all__ = ["EncoderStates", "forget_casts", "inference", "plain_search"]


@dataclass
class EncoderStates(BaseModelOutput):
    """Hidden states of an encoder in the form that every decoder takes: that of Switch looks for routers' logits."""

    router_logits: None = None


@contextmanager
def inference(module: nn.Module) -> Iterator[None]:
    """Run ``module`` without gradient and without dropout; each part's own mode is restored afterwards."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, training in modes:
            part.training = training
        # Autocast keeps the casts of weights made here, which carry no gradient: a training step must not meet them.
        torch.clear_autocast_cache()


@contextmanager
def plain_search(model: nn.Module) -> Iterator[None]:
    """Make transformers' ``generate`` search by likelihood alone.

    A published model may have settings of its own in ``generation_config.json``: penalties for repetition, which are
    penalties for copying from the prompt; forced first tokens; least lengths. Our likelihoods use none of them.
    """
    own_configs = [
        (module, vars(module)["generation_config"])
        for module in model.modules()
        if vars(module).get("generation_config")
    ]
    plain = GenerationConfig()
    for module, _ in own_configs:
        vars(module)["generation_config"] = plain
    try:
        yield
    finally:
        for module, config in own_configs:
            vars(module)["generation_config"] = config


def forget_casts() -> None:
    """Let autocast cast the weights anew: casts made without gradient would cut a later forward from its weights."""
    if not torch.is_grad_enabled():
        torch.clear_autocast_cache()
