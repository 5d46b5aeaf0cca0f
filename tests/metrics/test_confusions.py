from __future__ import annotations

from retrograd.metrics.confusions import Confusion, confusions


def test_pairs_by_count_with_their_share_of_the_gold_relation() -> None:
    gold = ["a", "a", "a", "a", "b", "b", "none", "none"]
    answers = ["b", "b", None, "a", "none", "b", "a", "none"]
    assert confusions(gold, answers) == [
        Confusion("a", "b", 2, 0.5),
        Confusion("a", None, 1, 0.25),
        Confusion("b", "none", 1, 0.5),
        Confusion("none", "a", 1, 0.5),
    ]


def test_nothing_wrong_is_nothing_confused() -> None:
    assert confusions(["a"], ["a"]) == []
