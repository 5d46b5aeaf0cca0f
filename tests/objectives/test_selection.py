"""Selection: its units, its limits, and the perplexity that it solves for."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objectives.conftest import normal, scored
from torch import Tensor

from retrograd.objectives import CandidateScores, Selection
from retrograd.objectives.differentiable_knn import FLATTEST, SHARPEST, sharpness
from retrograd.objectives.relaxed import Operator, hard_top_k, softsort_rows, successive_softmax

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
OPERATORS: tuple[Operator, ...] = ("softsort", "n3", "hard", "hard_n3")
SOFT: tuple[Operator, ...] = ("softsort", "n3")
worlds = settings(max_examples=25, derandomize=True)
operators = pytest.mark.parametrize("operator", OPERATORS)
soft_operators = pytest.mark.parametrize("operator", SOFT)


def perplexity(weight: Tensor) -> Tensor:
    return torch.special.entr(weight).sum(dim=-1).exp()


# The units


@soft_operators
def test_slots_are_those_of_the_similarity_at_the_retrievers_temperature(operator: Operator) -> None:
    similarity = 0.3 * normal(0, 4, 9)
    slow = {"softsort": softsort_rows, "n3": successive_softmax}[operator]
    found = Selection(slots=3, operator=operator)(scored(similarity, 0.05))
    torch.testing.assert_close(found, slow(similarity, 3, 0.05), **TIGHT)
    without = CandidateScores(scored(similarity, 0.05).log_prior)
    torch.testing.assert_close(Selection(slots=3, operator=operator)(without), slow(similarity / 0.05, 3, 1.0), **TIGHT)


def test_the_second_slot_of_n3_is_no_tie_with_the_first() -> None:
    """Given log-probabilities for similarities, log(1 - w) is divided by T once too little: half the slot goes back."""
    scores = scored(torch.tensor([[0.8, 0.5, 0.1, 0.0]], dtype=torch.float64), 0.02)
    selection = Selection(slots=2, operator="n3")
    assert selection(scores)[0, 1, 1] > 0.999
    rescaled = selection(replace(scores, temperature=None))[0, 1]
    assert rescaled[:2].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


# Limits


@operators
@pytest.mark.parametrize("best", [0, 6])
def test_slots_harden_to_the_top_k_as_the_temperature_falls(operator: Operator, best: int) -> None:
    order = torch.randperm(20, generator=torch.Generator().manual_seed(1))
    similarity = (0.03 * torch.arange(20, dtype=torch.float64))[order].unsqueeze(0)
    hard = hard_top_k(similarity, 4)
    selection = Selection(slots=4, operator=operator, best=best)
    away = [(selection(scored(similarity, t)) - hard).abs().sum().item() for t in (0.1, 0.03, 0.01, 5e-3, 2e-3, 1e-3)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(away))
    assert away[-1] < 1e-9
    assert operator in SOFT or away[0] == 0


def test_hard_slots_have_the_gradient_of_soft_ones() -> None:
    similarity, upstream = (0.1 * normal(2, 3, 8)).requires_grad_(), normal(3, 3, 2, 8)
    for hard, soft in (("hard", "softsort"), ("hard_n3", "n3")):
        ours, theirs = (Selection(slots=2, operator=one)(scored(similarity, 0.1)) for one in (hard, soft))
        assert torch.equal(ours, hard_top_k(similarity, 2))
        found, expected = (torch.autograd.grad((one * upstream).sum(), similarity)[0] for one in (ours, theirs))
        torch.testing.assert_close(found, expected, **TIGHT)


@operators
@pytest.mark.parametrize("target", [0.0, 2.5])
def test_only_the_best_are_looked_at_and_the_far_ones_would_change_nothing(operator: Operator, target: float) -> None:
    similarity = torch.cat([0.1 * normal(4, 5, 8), -2.0 + 0.1 * normal(5, 5, 40)], dim=-1)
    near = Selection(slots=3, best=8, operator=operator, perplexity=target)
    scores = scored(similarity, 0.02)
    found, full = near(scores), replace(near, best=0)(scores)
    torch.testing.assert_close(found, full, rtol=0, atol=1e-6)
    assert not found[..., 8:].any()
    torch.testing.assert_close(
        near.log_vote(scores).exp(), replace(near, best=0).log_vote(scores).exp(), atol=1e-6, rtol=0
    )


def test_equal_scores_at_the_edge_are_kept_in_the_order_of_their_columns() -> None:
    found = Selection(slots=2, best=3)(scored(torch.tensor([[0.1, 0.5, 0.1, 0.1, 0.2]]), 0.1))
    assert (found > 0).any(dim=1).tolist() == [[True, True, False, False, True]]


@operators
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("target", [0.0, 3.0])
def test_everything_stays_finite_at_a_temperature_of_a_200th(
    operator: Operator, dtype: torch.dtype, target: float
) -> None:
    """Embeddings, a learned temperature and ten slots under autocast, with ties, near-ties and queries of few."""
    query, passage = normal(6, 24, 16).float().requires_grad_(), normal(7, 24, 30, 16).float()
    passage[:6, 5:10] = passage[:6, :5]  # twins
    passage[6:12, 5:10] = passage[6:12, :5] + 1e-4 * normal(8, 6, 5, 16).float()
    passage[12] = passage[12, :1]  # thirty times the same
    passage.requires_grad_()
    log_temperature = torch.tensor(math.log(0.005), requires_grad=True)
    absent = torch.zeros(24, 30, dtype=torch.bool)
    absent[13, 1:], absent[14, 2:], absent[15, 11:], absent[16] = True, True, True, True
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype is torch.bfloat16):
        unit = torch.nn.functional.normalize
        cosine = (unit(passage, dim=-1) @ unit(query, dim=-1).unsqueeze(-1)).squeeze(-1)
        logit = (cosine / log_temperature.exp()).masked_fill(absent, -math.inf)
        log_prior = logit[torch.arange(24) != 16].log_softmax(dim=-1)
        log_prior = torch.cat([log_prior[:16], torch.full((1, 30), -math.inf), log_prior[16:]])
        scores = CandidateScores(log_prior, temperature=log_temperature.exp())
        selection = Selection(slots=10, operator=operator, perplexity=target)
        weight, log_vote = selection(scores), selection.log_vote(scores)
        loss = (weight * normal(9, 24, 10, 30).float()).sum() - log_vote[..., :3].clamp(min=-1e3).sum()
    assert weight.dtype == torch.float32
    assert weight.isfinite().all()
    filled = (~absent).sum(dim=-1, keepdim=True) > torch.arange(10)
    torch.testing.assert_close(weight.sum(dim=-1), filled.float())
    assert not weight[absent.unsqueeze(1).expand_as(weight)].any()
    loss.backward()
    for leaf in (query, passage, log_temperature):
        assert leaf.grad is not None
        assert leaf.grad.isfinite().all()


def test_derivatives_of_n3_grow_from_slot_to_slot_and_those_of_softsort_do_not() -> None:
    """Scores like cosines of a trained retriever (standard deviation 0.2), T = 0.005, the tenth slot."""

    def steepest(operator: Operator) -> float:
        similarity = (0.2 * normal(10, 40, 50)).requires_grad_()
        row = Selection(slots=10, operator=operator)(scored(similarity, 0.005))[:, 9]
        every = [torch.autograd.grad(row[:, k].sum(), similarity, retain_graph=True)[0] for k in range(50)]
        return torch.stack(every).abs().max().item() * 0.005

    assert steepest("softsort") <= 0.5
    assert steepest("n3") > 20


# Rows


@operators
@pytest.mark.parametrize("target", [0.0, 1.8])
@pytest.mark.parametrize("best", [0, 4])
def test_order_padding_and_batch_do_not_matter(operator: Operator, target: float, best: int) -> None:
    selection = Selection(slots=3, best=best, operator=operator, perplexity=target)
    scores = scored(0.2 * normal(11, 2, 6), 0.1)
    found = selection(scores)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    moved = selection(replace(scores, log_prior=scores.log_prior[:, order]))
    torch.testing.assert_close(moved, found[..., order], **TIGHT)
    holes = torch.tensor([0, 2, 3, 5, 6, 8])
    wide = torch.full((2, 9), -math.inf, dtype=torch.float64).index_copy(1, holes, scores.log_prior)
    padded = selection(replace(scores, log_prior=wide))
    torch.testing.assert_close(padded[..., holes], found, **TIGHT)
    torch.testing.assert_close(padded.sum(dim=-1), found.sum(dim=-1), **TIGHT)
    for b in range(2):
        alone = selection(replace(scores, log_prior=scores.log_prior[b : b + 1]))
        torch.testing.assert_close(found[b : b + 1], alone, **TIGHT)


@operators
@pytest.mark.parametrize("target", [0.0, 5.0])
def test_later_slots_are_empty_when_there_are_fewer_candidates(operator: Operator, target: float) -> None:
    similarity = normal(12, 3, 5)
    similarity[1, 2:] = similarity[2] = -math.inf
    found = Selection(slots=4, operator=operator, perplexity=target)(scored(similarity, 0.1))
    assert found.sum(dim=-1).tolist() == [pytest.approx([1, 1, 1, 1]), pytest.approx([1, 1, 0, 0]), [0] * 4]
    none = Selection(slots=4, operator=operator, perplexity=target)(CandidateScores(torch.empty(2, 0)))
    assert none.shape == (2, 4, 0)


# The perplexity


@worlds
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(3, 60),
    share=st.floats(0.1, 0.9),
    temperature=st.sampled_from([0.01, 0.05, 1.0]),
    single=st.booleans(),
)
def test_the_perplexity_is_solved(seed: int, k: int, share: float, temperature: float, single: bool) -> None:
    target = 1.0 + share * (k - 1)
    similarity = 0.2 * normal(seed, 4, k)
    scores = scored(similarity.float() if single else similarity, temperature)
    log_vote = Selection(slots=1, operator="n3", perplexity=target).log_vote(scores)
    torch.testing.assert_close(
        perplexity(log_vote.exp()), torch.full_like(log_vote[:, 0], target), rtol=1e-4, atol=1e-4
    )
    first = Selection(slots=1, operator="n3", perplexity=target)(scores)[:, 0]
    torch.testing.assert_close(first, log_vote.exp())


def test_the_gradient_of_the_sharpness_is_that_of_finite_differences() -> None:
    logit = (3.0 * normal(13, 4, 7)).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: sharpness(value, 3.0)[0], logit)
    gamma, reached = sharpness(logit, 3.0)
    assert reached.all()
    slope = torch.autograd.grad(gamma.log().sum(), logit)[0]
    torch.testing.assert_close(slope.sum(dim=-1), torch.zeros(4, dtype=torch.float64), **TIGHT)  # a constant added
    torch.testing.assert_close((slope * logit).sum(dim=-1), -torch.ones(4, dtype=torch.float64), **TIGHT)  # a scale


@soft_operators
def test_with_a_perplexity_neither_scale_nor_temperature_of_the_retriever_matter(operator: Operator) -> None:
    log_temperature = torch.tensor(math.log(0.05), dtype=torch.float64, requires_grad=True)
    similarity = 0.2 * normal(14, 3, 9)
    selection = Selection(slots=3, operator=operator, perplexity=2.5)
    found = selection(scored(similarity, log_temperature.exp()))
    torch.testing.assert_close(found, selection(scored(similarity, 0.4)), **TIGHT)
    (gradient,) = torch.autograd.grad((found * normal(15, 3, 3, 9)).sum(), log_temperature)
    assert gradient.item() == pytest.approx(0.0, abs=1e-9)
    if operator == "softsort":
        torch.testing.assert_close(found, selection(scored(7.0 * similarity, 0.05)), **TIGHT)


@operators
@pytest.mark.parametrize("target", [4.5, 9.0])
def test_too_few_candidates_are_weighed_equally(operator: Operator, target: float) -> None:
    similarity = torch.tensor([[0.9, 0.2, 0.1, -0.5, -math.inf]], dtype=torch.float64, requires_grad=True)
    scores = scored(similarity, 0.05)
    gamma, reached = sharpness(scores.log_prior, target)
    assert gamma.item() == pytest.approx(FLATTEST)
    assert not reached
    selection = Selection(slots=2, operator=operator, perplexity=target)
    quarter = torch.tensor([[0.25] * 4 + [0.0]], dtype=torch.float64)
    torch.testing.assert_close(selection.log_vote(scores).exp(), quarter, rtol=0, atol=1e-6)
    weight = selection(scores)
    if operator in SOFT:
        torch.testing.assert_close(weight, quarter.unsqueeze(1).expand(1, 2, 5), rtol=0, atol=1e-6)
    (gradient,) = torch.autograd.grad((weight * normal(16, 1, 2, 5)).sum(), similarity)
    assert gradient.abs().max() < 1e-9


@operators
def test_more_ties_than_the_target_share_the_slots_and_get_no_gradient(operator: Operator) -> None:
    """At the bound they would get a thousand times that of other queries."""
    similarity = torch.tensor([[0.3, 0.3, 0.3, -0.5], [0.3, 0.2, 0.1, 0.0]], dtype=torch.float64, requires_grad=True)
    scores = scored(similarity, 0.05)
    gamma, reached = sharpness(scores.log_prior, 2.0)
    assert reached.flatten().tolist() == [False, True]
    assert gamma[0].item() == pytest.approx(SHARPEST)
    selection = Selection(slots=2, operator=operator, perplexity=2.0)
    third = torch.tensor([1 / 3, 1 / 3, 1 / 3, 0.0], dtype=torch.float64)
    torch.testing.assert_close(selection.log_vote(scores)[0].exp(), third)
    (gradient,) = torch.autograd.grad((selection(scores) * normal(16, 2, 2, 4)).sum(), similarity)
    assert not gradient[0].any()
    assert gradient[1].any()
    temperature = torch.tensor(0.05, dtype=torch.float64, requires_grad=True)
    learned = selection(scored(similarity.detach(), temperature))
    (gradient,) = torch.autograd.grad((learned * normal(16, 2, 2, 4)).sum(), temperature)
    assert gradient.item() == pytest.approx(0.0, abs=1e-9)


def test_derivatives_of_n3_that_would_overflow_are_cut() -> None:
    score = (1e-4 * normal(17, 16, 12)).float().requires_grad_()
    (successive_softmax(score, 12, 1e-5) * normal(18, 16, 12, 12).float()).sum().backward()
    assert score.grad is not None
    assert score.grad.norm().isfinite()
