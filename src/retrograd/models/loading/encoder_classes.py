"""Which class of transformers opens a text encoder, and whether what it opens can serve as one."""

from __future__ import annotations

import torch
from transformers import (
    AutoModel,
    AutoModelForTextEncoding,
    LongT5Config,
    LongT5EncoderModel,
    MT5Config,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    SwitchTransformersConfig,
    T5Config,
    UMT5Config,
)

from retrograd.models.compute.inference import inference
from retrograd.types import UserError
from retrograd.util.guards import first_line

__all__ = ["READS_PADDING", "encoder_class", "make_encoder", "require_hidden_states"]

READS_PADDING = frozenset(("convbert", "fnet", "nystromformer", "yoso"))
"""Families in which padding changes the hidden states of a text: convolutions, Fourier transforms, landmarks."""

_READERS = (T5Config, MT5Config, UMT5Config)
_REFUSED = (SwitchTransformersConfig,)
"""Families whose encoders transformers opens and saves under a configuration that opens something else."""


EncoderClass = type[AutoModel] | type[AutoModelForTextEncoding] | type[LongT5EncoderModel]


def encoder_class(config: PretrainedConfig) -> EncoderClass:
    """Return the class that opens a text encoder: of the families of T5, the encoder alone.

    Raises `UserError` for families that cannot serve.
    """
    return LongT5EncoderModel if isinstance(config, LongT5Config) else _auto_class(config)


def make_encoder(config: PretrainedConfig) -> PreTrainedModel:
    """Return an encoder with weights drawn at random, or without weights. Raises as `encoder_class`."""
    return LongT5EncoderModel(config) if isinstance(config, LongT5Config) else _auto_class(config).from_config(config)


def _auto_class(config: PretrainedConfig) -> type[AutoModel] | type[AutoModelForTextEncoding]:
    if isinstance(config, _REFUSED):
        raise UserError(f"models of the family {config.model_type} are not supported as encoders; name another one")
    return AutoModelForTextEncoding if isinstance(config, _READERS) else AutoModel


def require_hidden_states(name: str, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """Raise `UserError` unless a model gives each token of a text a hidden state of its configuration's width."""
    if tokenizer.pad_token_id is None:  # refused where an encoder is made
        return
    serves, why = False, ""
    width = getattr(model.config, "hidden_size", None)
    try:
        for texts in (["a", "a a"], [""]):
            batch = tokenizer(texts, padding=True, padding_side="right", return_tensors="pt")
            with inference(model):
                hidden = model(**batch.to(model.device)).last_hidden_state
            why = f"its hidden states have the shape {tuple(hidden.shape)}"
            serves = tuple(hidden.shape) == (*batch["input_ids"].shape, width)
            if not serves:
                break
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model that wants an image, a target or a language fails in its own way
        serves, why = False, first_line(error).rstrip(".")
    if not serves:
        raise UserError(
            f"the model {name!r} (family {model.config.model_type}) cannot serve as a text encoder: {why}; name a "
            f"model that reads text alone, with one hidden state a token"
        )
