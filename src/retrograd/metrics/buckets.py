"""Items sorted into ranges of a whole number, such as the words of a sentence."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

__all__ = ["bucketed"]


def bucketed(values: Sequence[int], starts: Sequence[int]) -> dict[str, Int64[np.ndarray, " rows"]]:
    """Positions of the values by range, in the order of the ranges, without those that hold none.

    Ascending ``starts`` 0, 4, 8 make the ranges "0-3", "4-7" and "8+". Raises `ValueError` for a value below the first.
    """
    names = [_name(start, after) for start, after in zip(starts, [*starts[1:], None], strict=True)]
    rows: dict[str, list[int]] = {name: [] for name in names}
    for position, value in enumerate(values):
        if value < starts[0]:
            raise ValueError(f"value {value} at {position} is below {starts[0]}, where the ranges begin")
        rows[names[bisect_right(starts, value) - 1]].append(position)
    return {name: np.array(found, dtype=np.int64) for name, found in rows.items() if found}


def _name(start: int, after: int | None) -> str:
    if after is None:
        return f"{start}+"
    return str(start) if after == start + 1 else f"{start}-{after - 1}"
