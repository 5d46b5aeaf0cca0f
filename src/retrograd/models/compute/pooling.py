"""Pool hidden states over tokens: the modes of sentence-transformers, and one vector for each role.

Texts are padded on the right, so that the first token is the first one of the text.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from retrograd.models.compute.precision import full_precision
from retrograd.models.settings import PoolingMode

__all__ = ["ROLES", "pool", "pool_roles", "role_masks"]

ROLES = ("head", "tail", "context")


def pool(hidden: Float[Tensor, "b L D"], mask: Int[Tensor, "b L"], mode: PoolingMode) -> Float[Tensor, "b D"]:
    """Pool hidden states to one vector per text; tokens where ``mask`` is 0 never count."""
    if mode == "cls":
        return hidden[torch.arange(len(hidden), device=hidden.device), mask.argmax(dim=1)]
    if mode == "lasttoken":
        place = torch.arange(mask.shape[1], device=mask.device)
        return hidden[torch.arange(len(hidden), device=hidden.device), (mask * place).argmax(dim=1)]
    if mode == "max":
        return hidden.masked_fill(mask.unsqueeze(-1) == 0, -torch.inf).amax(dim=1)
    weight = mask.unsqueeze(-1).to(hidden.dtype)
    if mode == "weightedmean":
        weight = weight * torch.arange(1, mask.shape[1] + 1, device=mask.device).view(1, -1, 1)
    total = weight.sum(1)
    return (hidden * weight).sum(1) / (total.sqrt() if mode == "mean_sqrt_len_tokens" else total)


def role_masks(
    offsets: Sequence[Sequence[tuple[int, int]]], spans: Sequence[Sequence[tuple[int, int]]], width: int
) -> Bool[Tensor, "b roles L"]:
    """Return whether each token overlaps each role's span, in characters [start, end); special tokens never do."""
    special = [(0, 0)]  # the offsets that a tokenizer gives to a token that it has added
    token = torch.tensor([[*row, *special * (width - len(row))] for row in offsets]).view(len(offsets), 1, width, 2)
    span = torch.tensor([[*own] for own in spans]).view(len(spans), len(ROLES), 1, 2)
    overlaps = (token[..., 0] < span[..., 1]) & (span[..., 0] < token[..., 1])
    return overlaps & (span[..., 0] < span[..., 1])


def pool_roles(
    hidden: Float[Tensor, "b L width"], mask: Int[Tensor, "b L"], roles: Bool[Tensor, "b roles L"], normalise: bool
) -> Float[Tensor, "b D"]:
    """Return masked means side by side, divided by √3; a role without a token gets the mean over the whole text."""
    weight = torch.where(roles.any(dim=-1, keepdim=True), roles, mask.bool().unsqueeze(1)).float()
    with full_precision(hidden.device):
        mean = (weight / weight.sum(dim=-1, keepdim=True)) @ hidden
    each = F.normalize(mean, dim=-1) if normalise else mean
    return each.flatten(1) / math.sqrt(len(ROLES))
