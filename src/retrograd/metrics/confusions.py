"""What is taken for what: pairs of a gold and an answered relation, by how often they occur."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Confusion", "confusions"]


@dataclass(frozen=True, slots=True)
class Confusion:
    """``items`` of the gold relation were called ``answered`` (None: none valid), a ``share`` of its items."""

    gold: str
    answered: str | None
    items: int
    share: float


def confusions(gold: Sequence[str], answers: Sequence[str | None]) -> list[Confusion]:
    """Every pair that differs, most frequent first, then by name. The two lists are in the same order of items."""
    borne = Counter(gold)
    wrong = Counter(pair for pair in zip(gold, answers, strict=True) if pair[0] != pair[1])
    found = [Confusion(*pair, items, items / borne[pair[0]]) for pair, items in wrong.items()]
    return sorted(found, key=lambda one: (-one.items, one.gold, one.answered is not None, one.answered or ""))
