"""Soft slots: mixtures of passages, as rows of input embeddings that stand in front of a prompt.

    slot_r[s] = Σ_z w[r, z] · E[z, s],     E[z, s] the input embedding of token s of passage z, zero beyond its end

A one-hot row is the passage itself, token by token: what would be read if its text stood there. That place, before the
prompt and without a separator, is not where a task's own prompt puts a neighbour, so a generator that never trained on
soft slots reads them worse than its usual prompts. Letters
beyond the house's legend: P prompts, R slots, Z distinct passages, S token positions of a passage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.models.precision import full_precision

__all__ = ["SoftSlots", "in_front"]


@dataclass(frozen=True)
class SoftSlots:
    """What stands in the slots of P prompts. Slot r of prompt p has ``length[p, r]`` token positions, 0 if it is empty.

    A slot is as long as its longest passage of a weight other than 0, cut to the room there is. Where a shorter passage
    has ended, only the others' embeddings are left: a mixture fades, it is not filled with padding tokens.
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
        room: Int[Tensor, " P"],
    ) -> SoftSlots:
        """``ends`` are the passages' lengths, ``room`` how many positions each slot of a prompt may take."""
        position = torch.arange(embedding.shape[1], device=embedding.device)
        inside = embedding.masked_fill((position >= ends.unsqueeze(-1)).unsqueeze(-1), 0.0)
        used = torch.where(weight.detach() != 0, ends, 0)
        # A column of zeros lets the maximum exist where there is no passage at all.
        longest = torch.nn.functional.pad(used, (0, 1)).amax(dim=-1)
        return cls(inside, weight, torch.minimum(longest, room.unsqueeze(-1)))

    def at(self, position: Sequence[int]) -> SoftSlots:
        """The slots of some of the prompts."""
        chosen = torch.tensor(position, device=self.weight.device)
        return SoftSlots(self.embedding, self.weight[chosen], self.length[chosen])

    @property
    def total(self) -> Int[Tensor, " P"]:
        """Positions that all slots of a prompt take together."""
        return self.length.sum(dim=-1)

    def mixed(self) -> tuple[Float[Tensor, "P RS D"], Bool[Tensor, "P RS"]]:
        """The slots' embeddings side by side, each as wide as the widest, and which positions hold something."""
        prompts, slots, passages = self.weight.shape
        width = int(self.length.max()) if self.length.numel() else 0
        part = self.embedding[:, :width]
        size = part.shape[-1]
        # One product over the distinct passages: gathering [P K S D] first would take K / R times the memory. Not under
        # autocast, which would round the embedding of a hard choice.
        with full_precision(part.device):
            flat = part.reshape(passages, width * size).float()
            mixture = self.weight.reshape(prompts * slots, passages).float() @ flat
        position = torch.arange(width, device=part.device)
        holds = position < self.length.unsqueeze(-1)
        return mixture.to(part.dtype).view(prompts, slots * width, size), holds.view(prompts, slots * width)


def in_front(
    slots: SoftSlots, embedding: Float[Tensor, "P L D"], mask: Int[Tensor, "P L"]
) -> tuple[Float[Tensor, "P M D"], Int[Tensor, "P M"]]:
    """The slots, then the prompt, without gaps between them: positions are counted as if all of it were one text.

    Returns embeddings and attention mask; padding stands at the end and is zero.
    """
    mixture, holds = slots.mixed()
    everything, kept = torch.cat([mixture, embedding], dim=1), torch.cat([holds, mask.bool()], dim=1)
    width = int(kept.sum(dim=-1).max())
    order = kept.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :width]
    packed_mask = kept.gather(1, order)
    packed = everything.gather(1, order.unsqueeze(-1).expand(-1, -1, embedding.shape[-1]))
    return packed.masked_fill(~packed_mask.unsqueeze(-1), 0.0), packed_mask.to(mask.dtype)
