"""The tokens that begin and end what a generator writes, and how many it can read: what its configuration says."""

from __future__ import annotations

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from retrograd.types import UserError

__all__ = ["end_token", "input_limit", "start_token"]


def start_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """What a decoder sees before the first target token. Raises `UserError` when nobody names one."""
    generation = model.generation_config.decoder_start_token_id if model.generation_config else None
    named = (model.config.decoder_start_token_id, generation, tokenizer.cls_token_id, tokenizer.pad_token_id)
    return _first_token(named, "decoder_start_token", "the model's config.json")


def end_token(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """What ends a target. Raises `UserError` when nobody names one."""
    configured = model.generation_config.eos_token_id if model.generation_config else None
    first = configured[0] if isinstance(configured, list) and configured else configured
    return _first_token((tokenizer.eos_token_id, first, tokenizer.sep_token_id), "eos_token", "tokenizer_config.json")


def _first_token(candidates: tuple[object, ...], name: str, place: str) -> int:
    for token in candidates:
        if isinstance(token, int):
            return token
    raise UserError(f"the model names no {name}; set it in {place}")


def input_limit(model: PreTrainedModel, wanted: int, reserved: int) -> int:
    """The longest input, in tokens: what was asked for, or what the model's positions leave room for."""
    text = model.config.get_text_config(encoder=True) if model.config.is_encoder_decoder else model.config
    positions = getattr(text, "max_position_embeddings", None)  # T5 has none: its positions are relative
    return wanted if positions is None else max(1, min(wanted, positions - reserved))
