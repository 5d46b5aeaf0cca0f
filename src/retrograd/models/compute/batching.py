"""Group texts of like length into micro-batches, so that there is little padding and memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["equal_length_buckets", "lay_out_rows", "length_buckets", "mark_present", "pad_ids", "token_budget_on"]

_TOKEN_BUDGET_CPU = 2_048
_TOKEN_BUDGET_ELSEWHERE = 32_768


def token_budget_on(device: torch.device, budget: int) -> int:
    """Return the padded tokens of one forward pass: ``budget``, or, if it is 0, what suits the device.

    On a CPU small batches stay in its cache: MiniLM embeds 725 sentences a second at 2,048 tokens and 398 at 16,384
    (two cores, bf16), and trains 108 against 67. A GPU wants large ones.
    """
    return budget or (_TOKEN_BUDGET_CPU if device.type == "cpu" else _TOKEN_BUDGET_ELSEWHERE)


def length_buckets(lengths: Sequence[int], budget: int, max_items: int | None = None) -> list[list[int]]:
    """Split positions 0 … n-1 into groups of like length, longest first.

    A group costs ``len(group) * longest`` padded tokens, at most ``budget`` (tokens) unless one item alone is longer,
    and holds at most ``max_items`` items.
    Longest first: if memory is short, it shows at once. Equal lengths keep their order, so the result is deterministic.
    """
    groups: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not groups or (len(groups[-1]) + 1) * longest > budget or len(groups[-1]) == max_items:
            groups.append([])
            longest = max(lengths[position], 1)
        groups[-1].append(position)
    return groups


def equal_length_buckets(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split positions 0 … n-1 into groups of one length each, longest first. Otherwise as `length_buckets`."""
    positions: dict[int, list[int]] = {}
    for position, length in enumerate(lengths):
        positions.setdefault(length, []).append(position)
    return [
        [equal[i] for i in group]
        for length, equal in sorted(positions.items(), reverse=True)
        for group in length_buckets([length] * len(equal), budget)
    ]


def pad_ids(
    ids: list[list[int]], padding: int, device: torch.device, left: bool = False
) -> tuple[Int[Tensor, "P L"], Int[Tensor, "P L"]]:
    """Return token ids as one tensor, filled up with ``padding`` on the right or ``left``, and the attention mask."""
    width = max((len(row) for row in ids), default=0)
    gaps = [[padding] * (width - len(row)) for row in ids]
    tokens = [gap + row if left else row + gap for row, gap in zip(ids, gaps, strict=True)]
    zeros_ones = [([0] * len(gap), [1] * len(row)) for row, gap in zip(ids, gaps, strict=True)]
    mask = [zeros + ones if left else ones + zeros for zeros, ones in zeros_ones]
    shape = (len(ids), width)
    as_tensor = [torch.tensor(rows, dtype=torch.long, device=device).view(shape) for rows in (tokens, mask)]
    return as_tensor[0], as_tensor[1]


def mark_present(target_ids: Sequence[Sequence[int]], device: torch.device) -> Bool[Tensor, "P T"]:
    """Mark the tokens of each target in a table as wide as the longest."""
    width = max((len(ids) for ids in target_ids), default=0)
    lengths = torch.tensor([len(ids) for ids in target_ids], device=device)  # [P]
    return torch.arange(width, device=device) < lengths[:, None]


def lay_out_rows(
    scores: Float[Tensor, " tokens"], order: Int[Tensor, " P"], present: Bool[Tensor, "P T"]
) -> Float[Tensor, "P T"]:
    """Lay scores out as one row a pair, zero where not ``present``.

    ``scores`` lists the tokens of the pairs in ``order``, one pair after the other; what follows them belongs to none.
    """
    own = scores[: int(present.sum())]
    rows = torch.zeros(present.shape, dtype=scores.dtype, device=scores.device).masked_scatter(
        present[order], own
    )  # in ``order``
    return rows[torch.argsort(order)]  # in the order of the pairs
