"""Use transformers without its own output, and write its folders without what a tokenizer remembers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from transformers import (
    EncoderDecoderModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging as transformers_logging

__all__ = ["drop_empty_pooler", "quiet_transformers", "save_with_tokenizer"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' own bars and load reports out of our output, and restore its settings afterwards."""
    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def save_with_tokenizer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a transformers directory, without the truncation and padding that the tokenizer keeps from its last call.

    With them the files would depend on what was read last, and a tokenizer opened from them would have more settings.
    """
    if isinstance(tokenizer, PreTrainedTokenizerFast):
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.backend_tokenizer.no_padding()
    with quiet_transformers():
        model.save_pretrained(folder, state_dict=_with_pooler(model))
        tokenizer.save_pretrained(folder)


def drop_empty_pooler(model: PreTrainedModel) -> None:
    """Take out the pooler of zeros that `save_with_tokenizer` writes, so that a model is again what was saved."""
    encoder = getattr(model, "encoder", None)
    pooler = getattr(encoder, "pooler", None)
    if not isinstance(model, EncoderDecoderModel) or not isinstance(encoder, nn.Module):
        return
    if isinstance(pooler, nn.Module) and not any(bool(weight.any()) for weight in pooler.parameters()):
        encoder.register_module("pooler", None)


def _with_pooler(model: PreTrainedModel) -> dict[str, Tensor] | None:
    """Return the weights of two BERTs with a pooler of zeros for the encoder, which nothing reads; None for others.

    transformers opens such an encoder with a pooler in any case, and reports one that is not in the file as drawn anew.
    """
    encoder = getattr(model, "encoder", None)
    if (
        type(model) is not EncoderDecoderModel
        or getattr(encoder, "pooler", model) is not None
        or model._hf_peft_config_loaded
    ):
        return None
    size = int(cast(PretrainedConfig, model.config.encoder).hidden_size)
    zeros = {"weight": torch.zeros(size, size), "bias": torch.zeros(size)}
    return model.state_dict() | {f"encoder.pooler.dense.{name}": value for name, value in zeros.items()}
