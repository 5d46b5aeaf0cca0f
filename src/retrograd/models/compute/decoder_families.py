"""Which decoders may be given masks and positions of our own, and their keys and values in parts."""

from __future__ import annotations

from transformers import PreTrainedModel

__all__ = ["in_window", "reads_trees"]

_SEQUENCE_TO_SEQUENCE = frozenset({"t5", "mt5", "bert"})
_DECODER_ONLY = frozenset({"gemma", "gemma2", "gpt2", "llama", "mistral", "phi3", "qwen2", "qwen3"})


def reads_trees(model: PreTrainedModel) -> bool:
    """Return whether the decoder's family is known to support masks that are trees, and given positions.

    A list and not a trial: layers that look at neighbours in the input (recurrent ones, fixed windows) would be wrong
    without an error.
    """
    config = model.config.get_text_config(decoder=True)
    family = _SEQUENCE_TO_SEQUENCE if model.config.is_encoder_decoder else _DECODER_ONLY
    # Other attention kernels take no mask of this form.
    return config.model_type in family and config._attn_implementation in ("eager", "sdpa")


def in_window(model: PreTrainedModel, length: int) -> bool:
    """Return whether a sliding window would hide nothing of ``length`` positions, so that a mask may replace it."""
    window = getattr(model.config.get_text_config(decoder=True), "sliding_window", None)
    return window is None or length <= window
