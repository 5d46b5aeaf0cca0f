"""Break a test set down: items by ranges of a whole number, and pairs of relations that are confused."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

__all__ = ["Confusion", "count_confusions", "group_by_range"]


def group_by_range(values: Sequence[int], starts: Sequence[int]) -> dict[str, Int64[np.ndarray, " rows"]]:
    """Return the positions of the values by range, in the order of the ranges, without empty ranges.

    Ascending ``starts`` 0, 4, 8 make the ranges "0-3", "4-7" and "8+". Raises `ValueError` for a value below the first.
    """
    names = [_range_name(start, after) for start, after in zip(starts, [*starts[1:], None], strict=True)]
    rows: dict[str, list[int]] = {name: [] for name in names}
    for position, value in enumerate(values):
        if value < starts[0]:
            raise ValueError(f"value {value} at {position} is below {starts[0]}, where the ranges begin")
        rows[names[bisect_right(starts, value) - 1]].append(position)
    return {name: np.array(positions, dtype=np.int64) for name, positions in rows.items() if positions}


def _range_name(start: int, after: int | None) -> str:
    if after is None:
        return f"{start}+"
    return str(start) if after == start + 1 else f"{start}-{after - 1}"


@dataclass(frozen=True, slots=True)
class Confusion:
    """A count of ``items`` of the gold relation that were answered ``answered`` (None: not valid), a ``share`` of
    its items.
    """

    gold: str
    answered: str | None
    items: int
    share: float


def count_confusions(gold: Sequence[str], answers: Sequence[str | None]) -> list[Confusion]:
    """Return every pair that differs, most frequent first, then by name.

    The two lists are in the same order of items.
    """
    gold_counts = Counter(gold)
    wrong = Counter(pair for pair in zip(gold, answers, strict=True) if pair[0] != pair[1])
    pairs = [Confusion(*pair, items, items / gold_counts[pair[0]]) for pair, items in wrong.items()]
    return sorted(pairs, key=lambda pair: (-pair.items, pair.gold, pair.answered is not None, pair.answered or ""))
