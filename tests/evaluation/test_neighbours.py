"""Count what queries share with retrieved instances, in a world small enough to count by hand and enumerate."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from retrograd.evaluation.neighbours import TRAITS, Instance, Retrieved, agreement, chance_of_any, match

PLACE, FIRM = ("PERSON", "CITY"), ("PERSON", "FIRM")
BASE = [
    Instance("born", "Ada", "London", PLACE),
    Instance("born", "Bob", "Paris", PLACE),
    Instance("works", "Ada", "Acme", FIRM),
    Instance("none", "Cy", "London", PLACE),
    Instance("none", "acme", "Dee", FIRM),
    Instance("none", "Eve", "Rome", PLACE),
]
QUERIES = [
    Instance("born", "ADA", "Rome", PLACE),  # label: 0, 1; same role: 0, 2, 5; either role: 0, 2, 5
    Instance("works", "Flo", " Acme ", FIRM),  # label: 2; same role: 2; either role: 2, 4
    Instance("none", "London", "Ada", ("CITY", "PERSON")),  # label: 3, 4, 5; same role: none; either role: 0, 2, 3
]
NOTHING_OWN = [np.zeros(0, dtype=np.int64)] * 3
ALL = np.ones(3, dtype=bool)


def retrieved(rows: list[list[int]], probability: list[list[float]], own: list[np.ndarray] | None = None) -> Retrieved:
    zeros = np.zeros(len(rows))
    return Retrieved(np.array(rows), np.array(probability), own or NOTHING_OWN[: len(rows)], zeros, zeros)


FOUND = retrieved([[0, 3], [4, 5], [0, 5]], [[0.6, 0.2], [0.3, 0.1], [0.2, 0.2]])


def test_traits_and_support_are_counted_by_role_and_without_case() -> None:
    matches = match(QUERIES, BASE, FOUND)
    assert matches.support.tolist() == [[2, 3, 3, 4], [1, 1, 2, 2], [3, 0, 3, 5]]
    assert matches.available.tolist() == [6, 6, 6]
    assert matches.typed_support.tolist() == [[2, 2, 2, 3], [1, 1, 2, 2], [0, 0, 0, 0]]
    assert matches.typed_available.tolist() == [4, 2, 0]
    assert matches.shared[0].tolist() == [[True, True, True, True], [False, False, False, False]]
    assert matches.shared[1].tolist() == [[False, False, True, True], [False, False, False, False]]
    assert matches.shared[2].tolist() == [[False, False, True, True], [True, False, False, True]]


def test_shares_and_lifts_are_those_counted_by_hand() -> None:
    matches = match(QUERIES, BASE, FOUND)
    label, role, entity, either = agreement(matches, FOUND.weight(2), 2, ALL)
    assert [line.trait for line in (label, role, entity, either)] == list(TRAITS)
    assert label.weight == pytest.approx((0.75 + 0 + 0.5) / 3)
    assert label.share == pytest.approx((0.5 + 0 + 0.5) / 3)
    assert label.any_of_k == pytest.approx(2 / 3)
    assert label.random_share == pytest.approx((2 + 1 + 3) / 6 / 3)
    assert label.random_any_of_k == pytest.approx(((1 - 6 / 15) + (1 - 10 / 15) + (1 - 3 / 15)) / 3)
    assert label.weight_lift == pytest.approx((1.25 / 3) / (1 / 3))
    assert label.share_lift == pytest.approx(1.0)
    assert label.any_lift == pytest.approx((2 / 3) / label.random_any_of_k)
    assert (label.queries, label.without) == (3, 0)
    assert (role.without, entity.without) == (1, 0)
    assert either.share == pytest.approx((0.5 + 0.5 + 1.0) / 3)


def test_within_a_pair_of_types_only_queries_whose_pair_occurs_are_counted() -> None:
    matches = match(QUERIES, BASE, FOUND)
    label = agreement(matches, FOUND.weight(2), 2, ALL, "types")[0]
    assert label.queries == 2
    assert label.share == pytest.approx(0.25)
    assert label.random_share == pytest.approx((2 / 4 + 1 / 2) / 2)
    assert label.random_any_of_k == pytest.approx(((1 - 1 / 6) + 1.0) / 2)
    assert agreement(matches, FOUND.weight(2), 2, np.array([False, False, True]), "types") == []


def test_without_types_there_is_no_such_comparison() -> None:
    bare = [Instance(query.label, query.head, query.tail) for query in QUERIES]
    assert agreement(match(bare, BASE, FOUND), FOUND.weight(2), 2, ALL, "types") == []


def test_own_rows_count_neither_as_found_nor_as_findable() -> None:
    own = [np.array([0, 2]), NOTHING_OWN[0], NOTHING_OWN[0]]
    found = retrieved([[3, 5], [4, 5], [0, 5]], [[0.5, 0.5]] * 3, own)
    matches = match(QUERIES, BASE, found)
    assert matches.support[0].tolist() == [1, 1, 1, 2]
    assert matches.available.tolist() == [4, 6, 6]
    assert matches.typed_available.tolist() == [3, 2, 0]


def test_a_label_that_nobody_has_gives_no_lift() -> None:
    query = [Instance("founded", "Gus", "Oslo")]
    found = retrieved([[0, 1]], [[0.5, 0.25]])
    label = agreement(match(query, BASE, found), found.weight(2), 2, np.array([True]))[0]
    assert (label.weight, label.random_share, label.without) == (0.0, 0.0, 1)
    assert (label.weight_lift, label.share_lift, label.any_lift) == (None, None, None)


def test_a_query_that_may_retrieve_nothing_is_left_out() -> None:
    everything = [np.arange(6), NOTHING_OWN[0]]
    found = retrieved([[-1, -1], [2, -1]], [[0.0, 0.0], [0.5, 0.0]], everything)
    matches = match(QUERIES[:2], BASE, found)
    label = agreement(matches, found.weight(2), 2, np.ones(2, dtype=bool))[0]
    assert (label.queries, label.weight, label.share) == (1, 1.0, 1.0)
    assert found.weight(2).tolist() == [[0.0, 0.0], [1.0, 0.0]]


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6, 9])
@pytest.mark.parametrize("support", [0, 1, 3, 6])
def test_the_chance_of_any_is_that_of_enumeration(k: int, support: int) -> None:
    """Enumerate all hands of k cards of six, or the one hand of all six where k is larger."""
    hands = list(combinations(range(6), min(k, 6)))
    expected = sum(any(card < support for card in hand) for hand in hands) / len(hands)
    assert chance_of_any(np.array([support]), np.array([6]), k)[0] == pytest.approx(expected, abs=1e-15)


def test_blind_retrieval_has_a_lift_of_one() -> None:
    """Retrieving each pair of instances once, with equal weights, gives exactly what a blind draw expects."""
    pairs = [list(pair) for pair in combinations(range(6), 2)]
    found = retrieved(pairs, [[0.1, 0.1]] * len(pairs), [NOTHING_OWN[0]] * len(pairs))
    matches = match([QUERIES[0]] * len(pairs), BASE, found)
    for line in agreement(matches, found.weight(2), 2, np.ones(len(pairs), dtype=bool)):
        assert line.weight_lift == pytest.approx(1.0)
        assert line.share_lift == pytest.approx(1.0)
        assert line.any_lift == pytest.approx(1.0)
