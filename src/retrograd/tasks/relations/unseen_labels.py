"""Examples of labels that training never shows: how many there are, and of which labels.

The setting ``data.unseen_labels`` keeps them in the test data. No answer can name such a label, so each counts as wrong
in every score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from retrograd.data.relations.instance import has_unseen_label
from retrograd.types import Example

__all__ = ["count_unseen", "describe_unseen"]

_NAMED = 5


def count_unseen(examples: Iterable[Example]) -> dict[str, int]:
    """Return the number of examples of each label that the task does not know."""
    return Counter(example.target for example in examples if has_unseen_label(example))


def describe_unseen(counts: Mapping[str, int], examples: int) -> str:
    """Return a sentence about the labels of `count_unseen`, of so many ``examples`` in all; "" without any.

    The most frequent labels are named; there is no full stop.
    """
    if not counts:
        return ""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = ", ".join(f"{label!r} ({count:,})" for label, count in ordered[:_NAMED])
    others = f" and {len(counts) - _NAMED:,} more labels" if len(counts) > _NAMED else ""
    return (
        f"{sum(counts.values()):,} of {examples:,} examples have labels that training never shows, and count as wrong: "
        f"{named}{others}"
    )
