"""Whether a model can serve as a generator: it reads from left to right, and scores each text of a batch by itself."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from retrograd.models.compute.inference import inference
from retrograd.types import UserError
from retrograd.util.guards import first_line

__all__ = ["require_family", "require_left_to_right"]

_PADDING = "it has no mask for padding, which changes what it writes"
_DRAFT = "it drafts for another model, whose hidden states it reads"
_REFUSED: Mapping[str, str] = {
    "cpmant": "it reads a whole text in both directions, whatever mask it gets",
    "blt": "it reads bytes in patches that depend on what follows",
    "gemma4_assistant": _DRAFT,
    "gemma4_unified_assistant": _DRAFT,
    "nllb-moe": "its experts are full after some tokens, so that a text's score depends on the others of its batch",
    "reformer": f"{_PADDING}, and trains on texts of one length alone",
    "rwkv": f"{_PADDING}, and its state cannot be followed along several beams",
    "xlstm": _PADDING,
}
"""Families that cannot serve, each with the reason. What a trial shows is left to `require_left_to_right`."""
_SAME = 1e-3
"""Logits that differ by less, in units of the largest, are the same: batches round differently."""


def require_family(config: PretrainedConfig) -> None:
    """Raise `UserError` for a family of models that cannot serve as generators."""
    if reason := _REFUSED.get(config.model_type):
        raise UserError(
            f"models of the family {config.model_type} are not supported as generators: {reason}; {_REMEDY}"
        )


_REMEDY = "name a language model of another family"


def require_left_to_right(name: str, model: PreTrainedModel) -> None:
    """Raise `UserError` where a token's score would depend on the tokens after it, or can be had at no single position.

    Two texts that differ in their last token alone are read: the logits before it are equal, and the output layer sees
    one state a token.
    """
    config = model.config
    vocabulary = int(config.get_text_config(decoder=True).vocab_size)
    ids = [token for token in range(vocabulary // 3, vocabulary) if token != getattr(config, "pad_token_id", None)][:4]
    if len(ids) < 4:  # a vocabulary without words
        return
    texts = torch.tensor([ids[:3], [*ids[:2], ids[3]]], device=model.device)
    try:
        with inference(model):
            shape, logits = _read(model, texts)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model that wants an image or a sound fails in its own way
        why = first_line(error).rstrip(".")
        raise _refusal(name, model, why, _REMEDY) from error
    if shape[:2] != texts.shape or len(shape) != 3:
        raise _refusal(name, model, "its output layer does not see one hidden state a token", _REMEDY)
    if (logits[0, :-1] - logits[1, :-1]).abs().max() > _SAME * logits.abs().max():
        why = "it reads a text in both directions, so that a token's score depends on the tokens after it"
        raise _refusal(name, model, why, _remedy_of_directions(config))


def _read(model: PreTrainedModel, texts: Int[Tensor, "P S"]) -> tuple[torch.Size, Float[Tensor, "P S V"]]:
    """Return the shape of what the output layer sees of some texts, and their logits."""
    shapes: list[torch.Size] = []
    layer = model.get_output_embeddings()
    if layer is None:
        raise UserError(f"{type(model).__name__} has no output layer over the vocabulary")

    def keep(_: nn.Module, inputs: tuple[object, ...]) -> None:
        state = inputs[0]  # a pointer generator has states of its own kind, one a token
        shapes.append(state.shape if isinstance(state, Tensor) else torch.Size([*texts.shape, 1]))

    apart = {"decoder_input_ids": texts} if model.config.is_encoder_decoder else {}
    read = texts[:1].expand_as(texts) if apart else texts
    handle = layer.register_forward_pre_hook(keep)
    try:
        logits = model(input_ids=read, attention_mask=torch.ones_like(read), use_cache=False, **apart).logits
    finally:
        handle.remove()
    return shapes[-1] if shapes else torch.Size(), logits.float()


def _remedy_of_directions(config: PretrainedConfig) -> str:
    """Return the remedy for a model that reads in both directions: some read in one if their configuration says so."""
    switch = next((key for key in ("is_decoder", "causal") if getattr(config, key, None) is False), None)
    if switch is None:
        return _REMEDY
    return f'{_REMEDY}, or set "{switch}": true in its config.json if it was trained from left to right'


def _refusal(name: str, model: PreTrainedModel, why: str, remedy: str) -> UserError:
    family = model.config.model_type
    return UserError(f"the model {name!r} (family {family}) cannot serve as a generator: {why}; {remedy}")
