"""Opening Hugging Face models by hub name, local folder or built-in name: safetensors only, no remote code."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging as transformers_logging

from retrograd.models.builtin import BUILTIN_ENCODER, BUILTIN_SEQ2SEQ, minilm_folder, minilm_seq2seq
from retrograd.types import UserError

__all__ = ["open_encoder", "open_generator", "quiet_transformers"]


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


def open_encoder(name: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A text encoder with fp32 weights, and its tokenizer. Raises `UserError` with the remedy when it cannot be had."""
    if name == BUILTIN_ENCODER:
        return open_encoder(str(minilm_folder()))
    _refuse_unknown_builtin(name)
    with quiet_transformers(), _explained(name):
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = AutoModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    return model, tokenizer


def open_generator(name: str, rng: torch.Generator) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """A seq2seq or decoder-only generator with fp32 weights; ``rng`` draws those a built-in model lacks."""
    if name == BUILTIN_SEQ2SEQ:
        with quiet_transformers():
            return minilm_seq2seq(rng)
    _refuse_unknown_builtin(name)
    with quiet_transformers(), _explained(name):
        config = AutoConfig.from_pretrained(name)
        auto = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
        tokenizer = AutoTokenizer.from_pretrained(name)
        model = auto.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
    return model, tokenizer


def _refuse_unknown_builtin(name: str) -> None:
    if name.startswith("builtin:"):
        raise UserError(f"no built-in model {name!r} for this role; there are {BUILTIN_ENCODER} and {BUILTIN_SEQ2SEQ}")


@contextmanager
def _explained(name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError) as error:
        where = "folder" if Path(name).exists() else "hub name"
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"the model {name!r} ({where}) could not be opened: {first_line} "
            f"Give a folder with config.json, a tokenizer and *.safetensors weights, a hub name that is reachable "
            f"from here, or a built-in model ({BUILTIN_ENCODER}, {BUILTIN_SEQ2SEQ})."
        ) from error
