"""log p(choice | prompt) for all choices of a prompt: the encoder reads it once, and what choices share is run once.

The decoder sees the start token once per prompt. Its cached view of the prompt (keys and values of the cross-attention,
the dearest part of a short decoder) is then copied, not computed again, for the rest of every choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput

from retrograd.models.prefix_tree import PrefixTree
from retrograd.models.vocabulary import log_partition
from retrograd.types import UserError

__all__ = ["only_at", "score_choices"]


def score_choices(
    model: PreTrainedModel,
    tokens: Int[Tensor, "P L"],
    mask: Int[Tensor, "P L"],
    start: int,
    choice_ids: list[list[int]],
    tree: PrefixTree,
    inputs: Int[Tensor, "C T"],
    input_mask: Int[Tensor, "C T"],
) -> Float[Tensor, "P C"]:
    """Sequence-to-sequence models, without gradient. ``inputs`` are the choices without their last token, padded."""
    prompts, copies = len(tokens), len(choice_ids)
    encoder = cast(nn.Module, model.get_encoder())
    hidden = encoder(input_ids=tokens, attention_mask=mask, return_dict=True).last_hidden_state
    first = model(
        encoder_outputs=BaseModelOutput(last_hidden_state=hidden),
        attention_mask=mask,
        decoder_input_ids=tokens.new_full((prompts, 1), start),
        use_cache=True,
    )
    logits = [first.logits]
    if tree.prefixes > 1:
        seen: Cache = first.past_key_values
        seen.batch_repeat_interleave(copies)
        predicts = tree.first_seen(inputs.shape[1] + 1)[:, 1:].to(tokens.device).repeat(prompts, 1)
        with only_at(model, predicts):
            rest = model(
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden.repeat_interleave(copies, 0)),
                attention_mask=mask.repeat_interleave(copies, 0),
                decoder_input_ids=inputs.repeat(prompts, 1),
                decoder_attention_mask=nn.functional.pad(input_mask, (1, 0), value=1).repeat(prompts, 1),
                past_key_values=seen,
                use_cache=True,
            )
        logits.append(rest.logits.view(prompts, tree.prefixes - 1, -1))
    return _sums(logits, choice_ids, tree)


def _sums(logits: list[Float[Tensor, "P _ V"]], choice_ids: list[list[int]], tree: PrefixTree) -> Float[Tensor, "P C"]:
    """Σ_t log p(token t | prefix) per choice, from the logits after each distinct prefix."""
    device = logits[0].device
    total = torch.cat([log_partition(block.flatten(0, 1)).view(block.shape[:2]) for block in logits], dim=1)
    token = torch.tensor([t for ids in choice_ids for t in ids], device=device)
    prefix = torch.tensor([p for path in tree.paths for p in path], device=device)
    choice = torch.tensor([c for c, ids in enumerate(choice_ids) for _ in ids], device=device)
    # Prefix 0 is the empty one: it stands in the first block alone.
    said = [logits[0][:, 0][:, token], *(block[:, (prefix - 1).clamp(min=0), token] for block in logits[1:])]
    value = torch.where(prefix > 0, said[-1], said[0]).float() - total[:, prefix]
    return value.new_zeros(len(value), len(choice_ids)).index_add(1, choice, value)


@contextmanager
def only_at(model: PreTrainedModel, predicts: Bool[Tensor, "P S"]) -> Iterator[None]:
    """Let the output layer see only the hidden states marked in ``predicts``: [P S D] becomes [tokens D].

    Raises `UserError` for a model without an output layer.
    """
    output_layer = model.get_output_embeddings()
    if output_layer is None:
        raise UserError(f"{type(model).__name__} has no output layer over the vocabulary; name a generator")
    handle = output_layer.register_forward_pre_hook(lambda _, inputs: (inputs[0][predicts], *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
