"""Compare what retrieved instances share with their query and what instances drawn at random would share.

Among ten training instances drawn blindly one nearly always shares a label or an entity with a query where one label
is frequent. So every share here stands beside its expectation under k instances drawn without replacement from those
that the query may retrieve, and that expectation is computed, not sampled: with S of N instances sharing the trait,

    share of k: S / N        any of k: 1 - C(N-S, k) / C(N, k)     (hypergeometric)

A weighted share has the expectation S / N too, since blind instances know nothing of the weights. The second reference
draws from the instances whose head and tail have the query's own entity types: that much a pair of types gives away.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Bool, Float, Integer

__all__ = ["TRAITS", "Agreement", "Instance", "Matches", "Retrieved", "agreement", "chance_of_any", "match"]

TRAITS = ("same label", "shared entity, same role", "shared entity, any role", "entity or label")
"""What a query and an instance may share; the last means any role. Entities are compared by `normalise_entity`."""

Reference = Literal["base", "types"]
Key = TypeVar("Key", bound=Hashable)


def normalise_entity(entity: str) -> str:
    """Return an entity in the form in which it is compared: case folded, spaces normalised."""
    return " ".join(entity.casefold().split())


@dataclass(frozen=True, slots=True)
class Instance:
    """The parts of an instance that are compared: label, head, tail and, if the data have them, both entity types."""

    label: str
    head: str
    tail: str
    types: tuple[str, str] | None = None


@dataclass(frozen=True)
class Retrieved:
    """The K best instances of Q queries, best first, with p(z|x) over the whole base; row -1 is padding, with p = 0.

    ``own_rows`` are the rows that each query may not retrieve. ``entropy`` is that of p(z|x) over the whole base in
    nats, ``null`` the probability of reading nothing (0 where the model has no such choice).
    """

    rows: Integer[np.ndarray, "Q K"]
    probability: Float[np.ndarray, "Q K"]
    own_rows: Sequence[Integer[np.ndarray, " _"]]
    entropy: Float[np.ndarray, " Q"]
    null: Float[np.ndarray, " Q"]

    def weight(self, k: int) -> Float[np.ndarray, "Q k"]:
        """Return p(z|x) renormalised over the k best; zeros where a query has no instance at all."""
        best = self.probability[:, :k]
        total = best.sum(axis=1, keepdims=True)
        return np.divide(best, total, out=np.zeros_like(best), where=total > 0)


@dataclass(frozen=True)
class Matches:
    """The `TRAITS` that each retrieved instance shares, and how many instances could have shared them.

    ``support`` and ``available`` count the instances that share a trait, and all that the query may retrieve: over the
    base, and over those of the query's pair of types (0 available where the types are unknown, or nobody has them).
    """

    shared: Bool[np.ndarray, "Q K 4"]
    present: Bool[np.ndarray, "Q K"]
    support: Integer[np.ndarray, "Q 4"]
    available: Integer[np.ndarray, " Q"]
    typed_support: Integer[np.ndarray, "Q 4"]
    typed_available: Integer[np.ndarray, " Q"]


def match(queries: Sequence[Instance], instances: Sequence[Instance], retrieved: Retrieved) -> Matches:
    """Compare each query with what it retrieved, and count what it could have retrieved. Time O(Q·N) in bytes."""
    trait_rows = _TraitRows(instances)
    count, width = retrieved.rows.shape
    shared = np.zeros((count, width, len(TRAITS)), dtype=bool)
    support, typed_support = (np.zeros((count, len(TRAITS)), dtype=np.int64) for _ in range(2))
    available, typed_available = (np.zeros(count, dtype=np.int64) for _ in range(2))
    for q, query in enumerate(queries):
        shares, typed = trait_rows.sharing(query), trait_rows.of_same_types(query)
        shares[:, retrieved.own_rows[q]] = False
        typed[retrieved.own_rows[q]] = False
        present = retrieved.rows[q] >= 0
        shared[q, present] = shares[:, retrieved.rows[q, present]].T
        support[q], typed_support[q] = shares.sum(axis=1), shares[:, typed].sum(axis=1)
        available[q], typed_available[q] = len(instances) - len(retrieved.own_rows[q]), typed.sum()
    return Matches(shared, retrieved.rows >= 0, support, available, typed_support, typed_available)


class _TraitRows:
    """Rows of the base by label, head, tail and pair of types."""

    def __init__(self, instances: Sequence[Instance]) -> None:
        self._size = len(instances)
        self._label = _group_rows([instance.label for instance in instances])
        self._head = _group_rows([normalise_entity(instance.head) for instance in instances])
        self._tail = _group_rows([normalise_entity(instance.tail) for instance in instances])
        self._types = _group_rows([instance.types for instance in instances])

    def sharing(self, query: Instance) -> Bool[np.ndarray, "4 N"]:
        """Return which rows share which trait with the query."""
        head, tail = normalise_entity(query.head), normalise_entity(query.tail)
        shares = np.zeros((len(TRAITS), self._size), dtype=bool)
        shares[0, self._label.get(query.label, _NO_ROWS)] = True
        shares[1, self._head.get(head, _NO_ROWS)] = True
        shares[1, self._tail.get(tail, _NO_ROWS)] = True
        for rows in (self._head.get(tail, _NO_ROWS), self._tail.get(head, _NO_ROWS)):
            shares[2, rows] = True
        shares[2] |= shares[1]
        shares[3] = shares[0] | shares[2]
        return shares

    def of_same_types(self, query: Instance) -> Bool[np.ndarray, " N"]:
        """Return which rows have the query's pair of types; none where the query's types are unknown."""
        same = np.zeros(self._size, dtype=bool)
        if query.types is not None:
            same[self._types.get(query.types, _NO_ROWS)] = True
        return same


_NO_ROWS = np.zeros(0, dtype=np.int64)


def _group_rows(keys: Sequence[Key]) -> dict[Key, np.ndarray]:
    rows: dict[Key, list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    return {key: np.array(positions) for key, positions in rows.items()}


def chance_of_any(
    support: Integer[np.ndarray, " Q"], available: Integer[np.ndarray, " Q"], k: int
) -> Float[np.ndarray, " Q"]:
    """Return P(at least one of k drawn without replacement is among the ``support`` of ``available``).

    It is 1 - Π_{i<k} (N - S - i) / (N - i), the product being the hypergeometric probability of none. Where fewer than
    k are available, all of them are drawn.
    """
    none = np.ones(len(support))
    for i in range(k):
        left = available - i
        none *= np.where(left > 0, np.clip(left - support, 0, None) / np.maximum(left, 1), 1.0)
    return 1.0 - none


@dataclass(frozen=True)
class Agreement:
    """Shares of the retrieved instances that have one trait, beside what a blind draw would give; all in [0, 1].

    ``weight``: mean weight on instances that share it. ``share``: mean share of the k. ``any_of_k``: share of queries
    with at least one. ``queries`` were counted, ``without`` of them find no such instance in the whole reference.
    """

    trait: str
    queries: int
    without: int
    weight: float
    share: float
    any_of_k: float
    random_share: float
    random_any_of_k: float

    @property
    def weight_lift(self) -> float | None:
        """Return ``weight`` over its random expectation, None where that is 0. A lift of 1 is no better than chance."""
        return _divide(self.weight, self.random_share)

    @property
    def share_lift(self) -> float | None:
        """Return ``share`` over its random expectation, None where that is 0."""
        return _divide(self.share, self.random_share)

    @property
    def any_lift(self) -> float | None:
        """Return ``any_of_k`` over its random expectation, None where that is 0."""
        return _divide(self.any_of_k, self.random_any_of_k)


def _divide(observed: float, expected: float) -> float | None:
    return observed / expected if expected > 0 else None


def agreement(
    matches: Matches,
    weight: Float[np.ndarray, "Q K"],
    k: int,
    among: Bool[np.ndarray, " Q"],
    reference: Reference = "base",
) -> list[Agreement]:
    """Return a line per trait over the queries ``among`` that have something to retrieve from the reference.

    The list is empty where no query has. ``weight`` are the weights of the k best (`Retrieved.weight`). With the
    reference "types" only queries whose pair of types occurs in the base are counted, and what they retrieved.
    """
    within_types = reference == "types"
    available = matches.typed_available if within_types else matches.available
    is_scored = among & (available > 0) & matches.present[:, 0]
    if not is_scored.any():
        return []
    support = (matches.typed_support if within_types else matches.support)[is_scored]
    available = available[is_scored]
    shared, present = matches.shared[is_scored, :k], matches.present[is_scored, :k]
    return [
        Agreement(
            trait,
            queries=int(is_scored.sum()),
            without=int((support[:, column] == 0).sum()),
            weight=float((weight[is_scored, :k] * shared[:, :, column]).sum(axis=1).mean()),
            share=float((shared[:, :, column].sum(axis=1) / present.sum(axis=1)).mean()),
            any_of_k=float(shared[:, :, column].any(axis=1).mean()),
            random_share=float((support[:, column] / available).mean()),
            random_any_of_k=float(chance_of_any(support[:, column], available, k).mean()),
        )
        for column, trait in enumerate(TRAITS)
    ]
