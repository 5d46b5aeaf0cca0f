"""Draw how many examples of a part of data are used, by which seed and in which order.

Every kind of data draws alike: an order decides, and a draw is its beginning, so that with one seed a smaller draw lies
inside a larger one. Kinds differ in the order alone.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from retrograd.types import UserError

__all__ = ["Draws", "Order", "draw_seed", "require_draws", "shuffle"]

T = TypeVar("T")

Order = Callable[[Sequence[T], random.Random], list[T]]
"""Puts all items into the order in which they are drawn."""


def shuffle(items: Sequence[T], rng: random.Random) -> list[T]:
    """Return all items in random order."""
    return rng.sample(items, len(items))


def require_draws(counts: Mapping[str, int], seed: int) -> None:
    """Raise `UserError` for the first count below 0, by the name of its setting in ``data``, and for such a seed."""
    for name, count in counts.items():
        if count < 0:
            raise UserError(f"data.{name} is {count}; expected 0 or more")
    if seed < -1:
        raise UserError(f"data.seed is {seed}; expected 0 or more, or -1 for the experiment's")


def draw_seed(own: int, experiment: int) -> int:
    """Return the seed of all draws: ``data.seed``, or the experiment's where that is -1."""
    return experiment if own < 0 else own


@dataclass(frozen=True)
class Draws(Generic[T]):
    """Draws from the parts of one set of data. ``items`` is what error messages call its examples.

    ``held_out`` is ``data.dev_from_train``: how many training examples become development data before anything else is
    drawn of them.
    """

    seed: int
    items: str
    order: Order[T]
    held_out: int = 0

    def hold_out(self, items: list[T], source: str) -> tuple[list[T], list[T]]:
        """Return the rest of the training examples, and those that become development data.

        Raises `UserError` where nothing would be left.
        """
        if self.held_out == 0:
            return items, []
        if self.held_out >= len(items):
            raise UserError(
                f"data.dev_from_train is {self.held_out}, but {source or 'data.train'} holds {len(items)} "
                f"{self.items}; leave some for training"
            )
        ordered = self.order(items, random.Random(self.seed))
        return ordered[self.held_out :], ordered[: self.held_out]

    def take(self, items: list[T], part: str, source: str, count: int, share: float = 0.0) -> list[T]:
        """Return ``count`` examples of a part, or a ``share`` of them (at least one), drawn; or all, in their order.

        Raises `UserError` for more than there are.
        """
        if count > len(items):
            beside = " beside those of data.dev_from_train" if part == "train" and self.held_out else ""
            raise UserError(
                f"data.{part}_count is {count}, but {source or f'data.{part}'} holds {len(items)} {self.items}"
                f"{beside}; set it to 0 for all of them"
            )
        if 0 < share < 1 and items:
            count = max(1, round(share * len(items)))
        return self.order(items, random.Random(self.seed))[:count] if count else items
