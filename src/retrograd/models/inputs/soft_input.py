"""Represent soft input: rows of input embeddings before or after a prompt, one list per prompt.

Two kinds. `SoftTokens` are given as they are, by a soft prompt. `SoftSlots` are mixtures of passages, token by token:

    slot_r[s] = Σ_z w[r, z] · E[z, s],     E[z, s] the input embedding of token s of passage z, zero beyond its end

A one-hot row is the passage itself: what would be read if its text were there. That position, beside the prompt and
without a separator, is not where a task's own prompt puts a neighbour, so a generator that never trained on soft slots
reads them worse than its usual prompts. Letters beyond the legend of `retrograd.types`: P prompts, R slots, Z distinct
passages, S positions of the soft input.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.models.compute.precision import full_precision
from retrograd.objectives.functional import in_full_precision
from retrograd.types import UserError

__all__ = ["SoftInput", "SoftSlots", "SoftTokens", "insert_soft_input", "remaining_tokens"]


@runtime_checkable
class SoftInput(Protocol):
    """Soft input that a generator reads beside P prompts."""

    def at(self, position: Sequence[int], /) -> SoftInput:
        """Return the soft input of some of the prompts."""
        ...

    @property
    def total(self) -> Int[Tensor, " P"]:
        """The number of positions that each prompt's soft input takes."""
        ...

    def mix(self) -> tuple[Float[Tensor, "P S D"], Bool[Tensor, "P S"]]:
        """Return embeddings in the generator's width, and a mask of the positions that hold one; others are absent."""
        ...


@dataclass(frozen=True)
class SoftTokens:
    """Given embeddings. A position where ``holds`` is False is absent, and takes no position of the input."""

    embedding: Float[Tensor, "P S D"]
    holds: Bool[Tensor, "P S"]

    def at(self, position: Sequence[int]) -> SoftTokens:
        """Return the soft tokens of some of the prompts."""
        chosen = torch.tensor(position, dtype=torch.long, device=self.holds.device)
        return SoftTokens(self.embedding[chosen], self.holds[chosen])

    @property
    def total(self) -> Int[Tensor, " P"]:
        """The number of soft tokens of each prompt."""
        return self.holds.sum(dim=-1)

    def mix(self) -> tuple[Float[Tensor, "P S D"], Bool[Tensor, "P S"]]:
        """Return both fields."""
        return self.embedding, self.holds


@dataclass(frozen=True)
class SoftSlots:
    """The content of the slots of P prompts. Slot r of prompt p has ``length[p, r]`` token positions, 0 if it is empty.

    A slot is as long as its longest passage of a weight other than 0, cut to the tokens available. Where a shorter
    passage has ended, only the others' embeddings are left: a mixture fades, it is not filled with padding tokens.
    """

    embedding: Float[Tensor, "Z S D"]
    weight: Float[Tensor, "P R Z"]
    length: Int[Tensor, "P R"]

    @classmethod
    def of(
        cls,
        embedding: Float[Tensor, "Z S D"],
        ends: Int[Tensor, " Z"],
        weight: Float[Tensor, "P R Z"],
        limits: Int[Tensor, " P"],
    ) -> SoftSlots:
        """Make slots; ``ends`` are the passages' lengths, ``limits`` the most positions of each slot of a prompt."""
        position = torch.arange(embedding.shape[1], device=embedding.device)
        inside = embedding.masked_fill((position >= ends.unsqueeze(-1)).unsqueeze(-1), 0.0)
        used = torch.where(weight.detach() != 0, ends, 0)
        # A column of zeros lets the maximum exist where there is no passage at all.
        longest = torch.nn.functional.pad(used, (0, 1)).amax(dim=-1)
        return cls(inside, weight, torch.minimum(longest, limits.unsqueeze(-1)))

    def at(self, position: Sequence[int]) -> SoftSlots:
        """Return the slots of some of the prompts."""
        chosen = torch.tensor(position, device=self.weight.device)
        return SoftSlots(self.embedding, self.weight[chosen], self.length[chosen])

    @property
    def total(self) -> Int[Tensor, " P"]:
        """The number of positions that all slots of a prompt take together."""
        return self.length.sum(dim=-1)

    def mix(self) -> tuple[Float[Tensor, "P RS D"], Bool[Tensor, "P RS"]]:
        """Return the slots' embeddings side by side, each as wide as the widest, and a mask of present positions."""
        prompts, slots, passages = self.weight.shape
        width = int(self.length.max()) if self.length.numel() else 0
        part = self.embedding[:, :width]
        size = part.shape[-1]
        # One product over the distinct passages: gathering [P K S D] first would take K / R times the memory. Not under
        # autocast, which would round the embedding of a hard choice.
        with full_precision(part.device):
            flat = in_full_precision(part.reshape(passages, width * size))
            mixture = self.weight.reshape(prompts * slots, passages).to(flat.dtype) @ flat
        position = torch.arange(width, device=part.device)
        holds = position < self.length.unsqueeze(-1)
        return mixture.to(part.dtype).view(prompts, slots * width, size), holds.view(prompts, slots * width)


def insert_soft_input(
    soft: SoftInput,
    embedding: Float[Tensor, "P L D"],
    mask: Int[Tensor, "P L"],
    place: Int[Tensor, " P"],
    left: bool = False,
) -> tuple[Float[Tensor, "P M D"], Int[Tensor, "P M"]]:
    """Insert soft input after the first ``place`` hard tokens of each row, without gaps, as if all were one text.

    The hard tokens are padded on the right; what is returned, embeddings and attention mask, is padded with zeros on
    the right, or on the ``left``.
    """
    soft_embedding, holds = soft.mix()
    position = torch.arange(mask.shape[1], device=mask.device)
    # What comes first has the smallest number: tokens before the soft input 1, soft input 2, tokens after it 3.
    turn = torch.where(position < place.unsqueeze(-1), 1, 3)
    turn = torch.cat([torch.full_like(holds, 2, dtype=turn.dtype), turn], dim=1)
    is_present = torch.cat([holds, mask.bool()], dim=1)
    width = int(is_present.sum(dim=-1).max())
    order = turn.masked_fill(~is_present, 0 if left else 4).argsort(dim=-1, stable=True)
    order = order[:, order.shape[1] - width :] if left else order[:, :width]
    packed_mask = is_present.gather(1, order)
    everything = torch.cat([soft_embedding.to(embedding.dtype), embedding], dim=1)
    packed = everything.gather(1, order.unsqueeze(-1).expand(-1, -1, embedding.shape[-1]))
    return packed.masked_fill(~packed_mask.unsqueeze(-1), 0.0), packed_mask.to(mask.dtype)


def remaining_tokens(soft: SoftInput | None, prompts: int, max_tokens: int, min_tokens: int) -> list[int]:
    """Return how many of ``max_tokens`` tokens soft input leaves each prompt. Raises `UserError` if fewer than
    ``min_tokens``.
    """
    soft_lengths = [0] * prompts if soft is None else soft.total.tolist()
    limits = [max_tokens - count for count in soft_lengths]
    if min(limits, default=min_tokens) < min_tokens:
        raise UserError(
            f"{max(soft_lengths)} soft tokens leave a prompt {max(min(limits), 0)} of {max_tokens} input tokens, and "
            f"it needs at least {min_tokens}: raise max_input_tokens or retrieve into fewer slots"
        )
    return limits
