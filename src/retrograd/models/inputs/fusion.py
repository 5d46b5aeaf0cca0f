r"""Fuse prompts in the decoder: each is encoded by itself, and the decoder attends to all of them at once.

    H = [Enc(prompt_1); …; Enc(prompt_K)],    log p(y | prompt_1 … prompt_K) = Σ_t log Dec(y_t | y_<t, H)

Izacard & Grave 2021 (arXiv 2007.01282). Encoding costs K short prompts, not one K times as long, and each may have the
model's whole input length. The decoder cannot tell the order of the prompts if its attention to the encoder has
no positions (T5, BART, BERT as a decoder).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput

from retrograd.models.compute.batching import length_buckets, pad_ids
from retrograd.models.compute.inference import EncoderStates
from retrograd.models.inputs.prompt_tokens import PromptTokens, TokenIds
from retrograd.types import UserError

__all__ = ["FusedIds", "FusedPrompt", "encode_separately", "fused_ids", "model_arguments", "require_encoder"]

_ENCODED = "encoded"


@dataclass(frozen=True)
class FusedPrompt:
    """One prompt in several parts, each of which is encoded by itself. Equal parts in equal order are one prompt."""

    parts: tuple[str, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a fused prompt has no parts; expected at least one")


@dataclass(frozen=True)
class FusedIds:
    """The token ids of a `FusedPrompt`; its length is that of all parts."""

    parts: list[TokenIds]

    def __len__(self) -> int:
        return sum(map(len, self.parts))


def require_encoder(model: PreTrainedModel) -> None:
    """Raise `UserError` for a decoder-only model."""
    if not model.config.is_encoder_decoder:
        raise UserError(
            f"{type(model).__name__} is decoder-only, and fusion-in-decoder needs an encoder; set generator.fusion = "
            f'false and evaluation.reading = "together" or "singly", or name an encoder-decoder generator (T5, BART)'
        )


def fused_ids(prompts: Sequence[str | FusedPrompt], tokens: PromptTokens, max_tokens: int) -> list[FusedIds]:
    """Return the token ids of each part, at most ``max_tokens``; a plain prompt is its own only part."""
    parts = [prompt.parts if isinstance(prompt, FusedPrompt) else (prompt,) for prompt in prompts]
    texts = [text for own in parts for text in own]
    ids = iter(tokens.ids(texts, [max_tokens] * len(texts)))
    return [FusedIds([next(ids) for _ in own]) for own in parts]


def encode_separately(
    model: PreTrainedModel, prompts: Sequence[FusedIds], padding: int, budget: int
) -> dict[str, Tensor]:
    """Return ``encoded`` [P L D], the hidden states of each prompt's parts in order, and ``attention_mask`` [P L].

    Padding of the parts is dropped, so that L is the tokens of the longest prompt. Each distinct part is encoded once,
    in micro-batches of at most ``budget`` padded tokens. Differentiable.
    """
    number: dict[tuple[int, ...], int] = {}
    where = [[number.setdefault(tuple(part), len(number)) for part in prompt.parts] for prompt in prompts]
    flat, start = _hidden_states(model, [list(part) for part in number], padding, budget)
    length = [len(part) for part in number]
    places = [torch.cat([torch.arange(start[n], start[n] + length[n]) for n in own]) for own in where]
    place = nn.utils.rnn.pad_sequence(places, batch_first=True).to(model.device)
    sizes = torch.tensor([len(own) for own in places], device=model.device)
    mask = torch.arange(place.shape[1], device=model.device) < sizes.unsqueeze(-1)
    return {_ENCODED: flat[place], "attention_mask": mask.long()}


def _hidden_states(
    model: PreTrainedModel, parts: list[TokenIds], padding: int, budget: int
) -> tuple[Float[Tensor, "tokens D"], list[int]]:
    """Return the hidden states of all tokens, one part after the other, and the position at which each part begins."""
    encoder = cast(nn.Module, model.get_encoder())
    states: list[Tensor] = []
    start, offset = [0] * len(parts), 0
    for group in length_buckets([len(part) for part in parts], budget):
        tokens, mask = pad_ids([parts[i] for i in group], padding, model.device)
        hidden = encoder(input_ids=tokens, attention_mask=mask, return_dict=True).last_hidden_state
        states.append(hidden[mask.bool()])
        for i in group:
            start[i] = offset
            offset += len(parts[i])
    return torch.cat(states), start


def model_arguments(read: dict[str, Tensor]) -> dict[str, Tensor | BaseModelOutput]:
    """Return the forward arguments of what was read; hidden states of `encode_separately` become encoder outputs."""
    rest = {name: value for name, value in read.items() if name != _ENCODED}
    if _ENCODED not in read:
        return {**rest}
    return {**rest, "encoder_outputs": EncoderStates(last_hidden_state=read[_ENCODED])}
