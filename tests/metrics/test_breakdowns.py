"""Items are grouped by ranges, and confused pairs are counted with their share."""

from __future__ import annotations

import pytest

from retrograd.metrics.breakdowns import Confusion, count_confusions, group_by_range


def test_ranges_by_hand() -> None:
    found = group_by_range([3, 0, 20, 4, 7, 16], (0, 4, 8, 16))
    assert {name: rows.tolist() for name, rows in found.items()} == {"0-3": [0, 1], "4-7": [3, 4], "16+": [2, 5]}
    assert list(group_by_range([0, 5], (0, 1, 5))) == ["0", "5+"]
    assert group_by_range([], (0, 4)) == {}


def test_a_value_below_all_ranges_is_an_error() -> None:
    with pytest.raises(ValueError, match="value -1 at 1"):
        group_by_range([0, -1], (0, 4))


def test_pairs_by_count_with_their_share_of_the_gold_relation() -> None:
    gold = ["a", "a", "a", "a", "b", "b", "none", "none"]
    answers = ["b", "b", None, "a", "none", "b", "a", "none"]
    assert count_confusions(gold, answers) == [
        Confusion("a", "b", 2, 0.5),
        Confusion("a", None, 1, 0.25),
        Confusion("b", "none", 1, 0.5),
        Confusion("none", "a", 1, 0.5),
    ]


def test_nothing_wrong_is_nothing_confused() -> None:
    assert count_confusions(["a"], ["a"]) == []
