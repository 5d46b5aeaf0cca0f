"""Buckets: a partition, within budget, longest first."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrograd.models.compute.batching import equal_length_buckets, length_buckets


@given(st.lists(st.integers(0, 30), max_size=40), st.integers(0, 90), st.one_of(st.none(), st.integers(1, 5)))
def test_buckets(lengths, budget, max_items):
    groups = length_buckets(lengths, budget, max_items)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        longest = max(lengths[i] for i in group)
        assert len(group) == 1 or len(group) * longest <= budget
        assert max_items is None or len(group) <= max_items
    in_order = [i for group in groups for i in group]
    assert in_order == sorted(in_order, key=lambda i: (-lengths[i], i))


def test_a_group_is_filled_before_the_next_begins():
    assert length_buckets([1, 4, 4, 2, 4], budget=8) == [[1, 2], [4, 3], [0]]
    assert length_buckets([1, 4, 4, 2, 4], budget=12, max_items=4) == [[1, 2, 4], [3, 0]]


def test_groups_of_one_length_each() -> None:
    assert equal_length_buckets([1, 4, 4, 2, 4], budget=8) == [[1, 2], [4], [3], [0]]
    assert equal_length_buckets([], budget=8) == []
