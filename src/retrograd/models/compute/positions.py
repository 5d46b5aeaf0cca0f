"""How many tokens a model can read or write, fewer than some configurations state; and whether padding moves them."""

from __future__ import annotations

from inspect import signature
from typing import Literal

from transformers import PretrainedConfig, PreTrainedModel

__all__ = ["left_padding_moves", "position_limit"]

_COUNTED_FROM_PADDING = frozenset(
    (
        "camembert",
        "data2vec-text",
        "esm",
        "ibert",
        "layoutlmv3",
        "lilt",
        "longformer",
        "luke",
        "markuplm",
        "roberta",
        "roberta-prelayernorm",
        "xlm-roberta",
        "xlm-roberta-xl",
        "xmod",
    )
)
"""Families in which the first token stands at the position after the padding token's id, as in fairseq."""

_MPNET_PADDING = 1
"""MPNet's modules count from 1 whatever padding token the configuration names."""

_WITHOUT_POSITIONS = frozenset(("bloom", "falcon_mamba", "mamba", "mamba2", "mpt", "roformer"))
"""Families that take no positions and need none: theirs are relative, or they are recurrent."""

_NAMES = {
    "encoder": ("max_encoder_position_embeddings", "max_position_embeddings", "max_seq_len"),
    "decoder": ("max_decoder_position_embeddings", "max_position_embeddings", "max_seq_len"),
}
"""Where a configuration states its positions: LED has two numbers, MPT calls them a sequence length."""


def position_limit(config: PretrainedConfig, side: Literal["encoder", "decoder"] = "encoder") -> int | None:
    """Return the longest input in tokens, or of an encoder-decoder's ``side``; None where positions have no end.

    T5's positions are relative, and XLNet states -1.
    """
    if isinstance(part := getattr(config, side, None), PretrainedConfig):  # an encoder and a decoder put together
        config = part
    elif config.is_encoder_decoder:
        config = config.get_text_config(**{side: True})
    else:
        config = config.get_text_config()
    stated = next((number for name in _NAMES[side] if isinstance(number := getattr(config, name, None), int)), 0)
    if stated <= 0:
        return None
    return max(0, stated - _first_position(config))


def left_padding_moves(model: PreTrainedModel) -> bool:
    """Return whether padding on the left moves a text to other positions.

    A decoder-only model that takes no positions counts them from the first token, be it padding, as the decoders of
    BART and its kin do where they stand alone.
    """
    takes_positions = "position_ids" in signature(type(model).forward).parameters
    family = model.config.model_type
    return not (model.config.is_encoder_decoder or takes_positions or family in _WITHOUT_POSITIONS)


def _first_position(config: PretrainedConfig) -> int:
    """Return the position of the first token in the table of positions."""
    if config.model_type == "mpnet":
        return _MPNET_PADDING + 1
    if config.model_type not in _COUNTED_FROM_PADDING:
        return 0
    if config.model_type == "esm" and getattr(config, "position_embedding_type", "absolute") != "absolute":
        return 0
    return (config.pad_token_id or 0) + 1
