from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.metrics.ranking import MRR, NDCG, Precision, Recall, Success, ranking_scores, relevance
from retrograd.types import UserError

METRICS = [Recall, Success, Precision, MRR, NDCG]


def one(metric, bits: str, total: int) -> float:
    relevant = np.array([[bit == "1" for bit in bits]], dtype=np.bool_).reshape(1, len(bits))
    return float(metric(relevant, np.array([total]))[0])


@pytest.mark.parametrize(
    ("metric", "name"),
    [
        (Recall(5), "recall@5"),
        (Success(1), "success@1"),
        (Precision(10), "precision@10"),
        (MRR(10), "MRR@10"),
        (NDCG(3), "nDCG@3"),
    ],
)
def test_a_metric_prints_as_its_name(metric, name: str):
    assert str(metric) == name


# Ranks 2 and 3 of five are relevant; the base has four relevant items.
@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (Recall(1), 0.0),
        (Recall(2), 1 / 4),
        (Recall(5), 2 / 4),
        (Success(1), 0.0),
        (Success(2), 1.0),
        (Precision(2), 1 / 2),
        (Precision(5), 2 / 5),
        (Precision(10), 2 / 10),
        (MRR(1), 0.0),
        (MRR(5), 1 / 2),
        (NDCG(3), (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2)),
        (NDCG(5), (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3) + 1 / 2 + 1 / math.log2(5))),
    ],
)
def test_by_hand(metric, expected: float):
    assert one(metric, "01100", 4) == pytest.approx(expected)


def twin(name: str, bits: list[bool], total: int, k: int) -> float:
    """Compute the metrics by their definitions, one rank at a time."""
    hits = [rank for rank, bit in enumerate(bits[:k], start=1) if bit]
    if not hits:
        return 0.0
    ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(k, total) + 1))
    return {
        "recall": len(hits) / total,
        "success": 1.0,
        "precision": len(hits) / k,
        "MRR": 1 / hits[0],
        "nDCG": sum(1 / math.log2(1 + rank) for rank in hits) / ideal,
    }[name]


@st.composite
def batches(draw) -> tuple[np.ndarray, np.ndarray]:
    queries, ranks = draw(st.integers(1, 4)), draw(st.integers(0, 7))
    row = st.lists(st.booleans(), min_size=ranks, max_size=ranks)
    relevant = np.array([draw(row) for _ in range(queries)], dtype=np.bool_).reshape(queries, ranks)
    unseen = np.array([draw(st.integers(0, 3)) for _ in range(queries)])
    return relevant, relevant.sum(axis=1) + unseen


@given(batches(), st.integers(1, 9))
def test_a_batch_equals_the_slow_twin(batch: tuple[np.ndarray, np.ndarray], k: int):
    relevant, total = batch
    for kind in METRICS:
        metric = kind(k)
        name = str(metric).partition("@")[0]
        expected = [twin(name, row.tolist(), int(n), k) for row, n in zip(relevant, total, strict=True)]
        assert metric(relevant, total) == pytest.approx(expected)


@given(batches(), st.integers(1, 9))
def test_shares_grow_with_k_and_lie_between_0_and_1(batch: tuple[np.ndarray, np.ndarray], k: int):
    relevant, total = batch
    for kind in METRICS:
        score = kind(k)(relevant, total)
        assert ((score >= 0) & (score <= 1 + 1e-12)).all()
        if kind in (Recall, Success, MRR):
            assert (kind(k + 1)(relevant, total) >= score).all()


@pytest.mark.parametrize("kind", METRICS)
def test_a_perfect_list_scores_1(kind):
    assert one(kind(3), "111", 3) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", [Recall, Success, MRR, NDCG])
def test_one_gold_in_front_scores_1_at_any_k(kind):
    assert one(kind(5), "10000", 1) == pytest.approx(1.0)


@pytest.mark.parametrize("kind", METRICS)
def test_a_query_without_relevant_items_scores_0(kind):
    assert one(kind(3), "000", 0) == 0.0
    assert one(kind(3), "", 0) == 0.0


def test_relevance_from_ids():
    found = relevance([["d3", "d1", "d9"], ["d2"], []], [{"d1", "d3"}, {"d7"}, {"d1"}])
    assert found.relevant.tolist() == [[True, True, False], [False, False, False], [False, False, False]]
    assert found.total.tolist() == [2, 1, 1]


def test_relevance_counts_a_repeated_id_once_and_never_counts_padding():
    found = relevance([[4, 4, 7, -1, -1]], [[7, 4, 4]])
    assert found.relevant.tolist() == [[True, False, True, False, False]]
    assert found.total.tolist() == [2]
    assert Recall(5)(found.relevant, found.total).tolist() == [1.0]


def test_ranking_scores_are_means_in_percent_by_name():
    found = relevance([[1, 2], [2, 1], [3, 4]], [{1}, {1}, {1}])
    scores = ranking_scores([Recall(1), Recall(2), MRR(2)], found.relevant, found.total)
    assert scores == pytest.approx({"recall@1": 100 / 3, "recall@2": 200 / 3, "MRR@2": 100 * 1.5 / 3})


@pytest.mark.parametrize("kind", METRICS)
def test_cutoff_must_be_positive(kind):
    with pytest.raises(UserError, match="k is 0; expected the number of ranks"):
        kind(0)


@pytest.mark.parametrize("kind", METRICS)
def test_contradictions_are_errors(kind):
    with pytest.raises(UserError, match=r"query 1 \(from 0\) has 2 relevant items in its list but a total of 1"):
        kind(1)(np.array([[True, False], [True, True]]), np.array([1, 1]))


def test_mismatched_inputs_are_errors():
    with pytest.raises(UserError, match="1 ranked lists but 2 sets of relevant ids"):
        relevance([["a"]], [{"a"}, {"b"}])
    with pytest.raises(UserError, match=r"query 0 \(from 0\) are the string 'd12'; expected \['d12'\]"):
        relevance([["d12"]], ["d12"])
    with pytest.raises(UserError, match="at least one query"):
        ranking_scores([Recall(1)], np.zeros((0, 3), dtype=np.bool_), np.zeros(0, dtype=np.int64))
