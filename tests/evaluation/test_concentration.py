"""Compare the measures of concentration with numbers counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from retrograd.evaluation.concentration import (
    Distribution,
    average_slots,
    effective_number,
    hard_distance,
    measure_usage,
    perplexity,
    slot_similarity,
)

NONE = np.zeros(0, dtype=np.int64)


def test_equal_weights_count_all_and_a_single_one_counts_one() -> None:
    weight = np.array([[0.25] * 4, [1.0, 0.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.8, 0.2, 0.0, 0.0]])
    assert effective_number(weight).tolist() == pytest.approx([4.0, 1.0, 2.0, 1 / 0.68])
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert perplexity(weight).tolist() == pytest.approx([4.0, 1.0, 2.0, math.exp(entropy)])


def test_a_distribution_is_mean_and_percentiles() -> None:
    found = Distribution.of(np.arange(101.0))
    assert (found.mean, found.p5, found.p25, found.median, found.p75, found.p95) == (50, 5, 25, 50, 75, 95)


def test_usage_counts_each_instance() -> None:
    """Four queries retrieve up to two instances each; row 3 is never retrieved, row 0 always."""
    found = measure_usage(np.array([[0, 1], [0, 1], [0, 2], [0, -1]]), [NONE] * 4, 4)
    assert found.counts.tolist() == [4, 2, 1, 0]
    assert found.never_share == 0.25
    assert found.top10_share == 1.0
    share = np.array([4, 2, 1]) / 7
    assert found.effective == pytest.approx(float(np.exp(-(share * np.log(share)).sum())))
    differences = sum(abs(a - b) for a in found.counts for b in found.counts)
    assert found.gini == pytest.approx(differences / (2 * 4 * 7))
    assert found.random_never_share == pytest.approx((1 / 2) ** 3 * (3 / 4))
    assert found.hubs(2) == [(0, 4), (1, 2)]
    assert found.hubs(9) == [(0, 4), (1, 2), (2, 1)]


def test_equal_usage_has_gini_zero() -> None:
    found = measure_usage(np.array([[0, 1], [2, 3]]), [NONE] * 2, 4)
    assert (found.gini, found.never_share) == (0.0, 0.0)
    assert found.effective == pytest.approx(4.0)


def test_own_rows_cannot_be_drawn_blindly_either() -> None:
    """Row 0 may be drawn by the second query alone, which draws one of two; the first always draws row 1."""
    found = measure_usage(np.array([[1], [0]]), [np.array([0]), NONE], 2)
    assert found.random_never_share == pytest.approx((1 / 2 + 0) / 2)


ORTHOGONAL = torch.eye(3)[None]
SAME = torch.tensor([[[0.5, 0.5, 0.0]] * 3])
LOG_PRIOR = torch.tensor([[0.5, 0.3, 0.1]]).log()


def test_slots_on_different_instances_are_unlike_and_equal_mixtures_are_alike() -> None:
    assert slot_similarity(ORTHOGONAL).item() == pytest.approx(0.0)
    assert slot_similarity(SAME).item() == pytest.approx(1.0)
    tilted = torch.tensor([[[1.0, 0.0], [1.0, 1.0]]])
    assert slot_similarity(tilted).item() == pytest.approx(math.sqrt(0.5))


def test_a_slot_that_holds_nothing_is_in_no_pair() -> None:
    assert slot_similarity(torch.tensor([[[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]])).item() == pytest.approx(0.0)
    assert math.isnan(slot_similarity(torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])).item())


def test_the_distance_to_the_hard_set_is_zero_for_it_and_at_most_twice_the_slots() -> None:
    two = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    assert hard_distance(two, LOG_PRIOR).item() == pytest.approx(0.0)
    assert hard_distance(two.flip(-1)[:, :1], LOG_PRIOR).item() == pytest.approx(2.0)
    assert hard_distance(SAME[:, :2], LOG_PRIOR).item() == pytest.approx(0.0)
    assert hard_distance(torch.tensor([[[1.0, 0.0, 0.0]] * 2]), LOG_PRIOR).item() == pytest.approx(2.0)


def test_absent_candidates_are_in_no_hard_set() -> None:
    log_prior = torch.tensor([[0.0, -torch.inf, -torch.inf]])
    assert hard_distance(torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]]), log_prior).item() == 0.0


def test_slots_are_summed_up_over_queries() -> None:
    narrow = torch.eye(3)[None, :, :2]  # two candidates: the third slot holds nothing
    found = average_slots([(torch.cat([ORTHOGONAL, SAME]), LOG_PRIOR.expand(2, -1))])
    assert average_slots([(narrow, LOG_PRIOR[:, :2]), (ORTHOGONAL, LOG_PRIOR)]).candidates == 3
    assert found == average_slots([(ORTHOGONAL, LOG_PRIOR), (SAME, LOG_PRIOR)])
    assert (found.count, found.candidates) == (3, 3)
    assert found.similarity == pytest.approx(0.5)
    assert found.hard_distance == pytest.approx((0.0 + 0.5 + 0.5 + 1.0) / 2)
    assert found.largest_sum == pytest.approx((1.0 + 1.5) / 2)
