"""Nested, stratified samples of training sets, which keep the shares of the labels."""

from __future__ import annotations

import random
from collections.abc import Sequence

from retrograd.data.relations.instance import RelationInstance
from retrograd.types import UserError

__all__ = ["sample_instances", "split_instances", "stratify"]


def sample_instances(instances: Sequence[RelationInstance], count: int, rng: random.Random) -> list[RelationInstance]:
    """Return ``count`` instances, stratified by label and nested.

    Within each label the order is shuffled; then the labels are interleaved in proportion to their size (systematic
    sampling with a random start per label, so that a rare label has its fair chance in a small sample). The sample is
    the beginning of that one order: with equal seeds, a smaller sample is the beginning of a larger one.
    Each label's count differs from its share by less than 1 plus (its share of all × the number of labels).
    Raises `UserError` for a count below 0 or above what there is.
    """
    return split_instances(instances, count, rng)[1]


def split_instances(
    instances: Sequence[RelationInstance], count: int, rng: random.Random
) -> tuple[list[RelationInstance], list[RelationInstance]]:
    """Return (the rest, ``count`` held out), both stratified by label; together they have every instance once.

    By instance, not by sentence: a sentence that occurs with two pairs of entities may fall on both sides.

    Raises `UserError` as `sample_instances` does.
    """
    if not 0 <= count <= len(instances):
        raise UserError(f"cannot draw {count} of {len(instances)} instances; choose 0 to {len(instances)}")
    ordered = stratify(instances, rng)
    return ordered[count:], ordered[:count]


def stratify(instances: Sequence[RelationInstance], rng: random.Random) -> list[RelationInstance]:
    """Return all instances in an order in which every prefix has about the overall shares of the labels."""
    return [instances[position] for position in _order_by_label(instances, rng)]


def _order_by_label(instances: Sequence[RelationInstance], rng: random.Random) -> list[int]:
    """Return all positions in an order in which every prefix has about the overall shares of the labels."""
    by_label: dict[str, list[int]] = {}
    for position, instance in enumerate(instances):
        by_label.setdefault(instance.relation or "", []).append(position)
    ranked: list[tuple[float, int]] = []
    for label in sorted(by_label):
        positions = by_label[label]
        rng.shuffle(positions)
        start = rng.random()
        ranked += [((rank + start) / len(positions), position) for rank, position in enumerate(positions)]
    return [position for _, position in sorted(ranked)]
