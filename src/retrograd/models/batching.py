"""Micro-batches of texts of like length, so that little time goes into padding and memory stays bounded."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["length_buckets"]


def length_buckets(lengths: Sequence[int], budget: int, most: int | None = None) -> list[list[int]]:
    """Split positions 0 … n-1 into groups of like length, longest first.

    A group costs ``len(group) * longest`` padded tokens, at most ``budget`` (tokens) unless one item alone is longer,
    and holds at most ``most`` items.
    Longest first: if memory is short, it shows at once. Equal lengths keep their order, so the result is deterministic.
    """
    groups: list[list[int]] = []
    longest = 0
    for position in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if not groups or (len(groups[-1]) + 1) * longest > budget or len(groups[-1]) == most:
            groups.append([])
            longest = max(lengths[position], 1)
        groups[-1].append(position)
    return groups
