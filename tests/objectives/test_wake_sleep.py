"""WakeSleep: its expectation by enumeration of every possible draw, and what is known of its bias."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrograd.objectives import CandidateScores, JointStochasticApproximation, WakeSleep, wake_sleep
from retrograd.types import UserError

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
COPIES = 20_000
FALSE_ALARM = 1e-6
"""As in conftest.py: the chance that a statistical test fails although the code is right."""


def proposal(here, share: float) -> Tensor:
    """r = αq + (1-α)p of the first query, both renormalised over the candidates, written out."""
    q = here.posterior_logits.detach()[0, : here.k].softmax(dim=-1)
    return share * q + (1 - share) * here.prior_logits.detach()[0, : here.k].softmax(dim=-1)


def omega(here, share: float) -> Tensor:
    """ω = p L / r of the first query, p over the whole base."""
    return (here.scores().log_prior.detach() + here.log_likelihood()).exp()[0] / proposal(here, share)


def self_normalised(drawn: tuple[int, ...], omega: Tensor) -> Tensor:
    """w of one outcome: each draw brings its ω to its column."""
    weight = torch.zeros_like(omega)
    for column in drawn:
        weight[column] += omega[column]
    return weight / weight.sum()


def expected_weight(here, share: float, draws: int) -> Tensor:
    """E[w] of the first query, summed over all K^n ordered draws; neither the code under test nor chance is used."""
    r, weight_of = proposal(here, share), omega(here, share)
    outcomes = itertools.product(range(here.k), repeat=draws)
    return sum(math.prod(r[k].item() for k in drawn) * self_normalised(drawn, weight_of) for drawn in outcomes)


def leading_bias(here, share: float) -> Tensor:
    """-(π_k²/r_k - π_k Σ_j π_j²/r_j): what n (E[w] - π) tends to, by the delta method for a ratio of two means."""
    pi, r = here.responsibilities()[0], proposal(here, share)
    return -(pi.square() / r - pi * (pi.square() / r).sum())


def on_outcomes(here, objective: WakeSleep, outcomes: Tensor):
    """One copy of the query for each row of ``outcomes``, as if those columns had been drawn for it."""

    def as_told(log_proposal: Tensor, draws: int, rng: torch.Generator) -> Tensor:
        assert outcomes.shape == (len(log_proposal), draws)
        return outcomes

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wake_sleep, "propose", as_told)
        return here.copies(len(outcomes)).differentiate(objective)


def all_outcomes(here, share: float, draws: int) -> tuple[Tensor, Tensor]:
    """Every ordered draw of n columns [K^n n], and its probability [K^n]."""
    outcomes = torch.tensor(list(itertools.product(range(here.k), repeat=draws)))
    return outcomes, proposal(here, share)[outcomes].prod(dim=-1)


def unordered_outcomes(here, share: float, draws: int) -> tuple[Tensor, Tensor]:
    """The same without regard to order: n need not be small. Probabilities are multinomial."""
    outcomes = torch.tensor(list(itertools.combinations_with_replacement(range(here.k), draws)))
    times = torch.nn.functional.one_hot(outcomes, here.k).sum(dim=1).double()
    ways = torch.tensor(draws + 1.0).double().lgamma() - (times + 1).lgamma().sum(dim=-1)
    return outcomes, (ways + (times * proposal(here, share).log()).sum(dim=-1)).exp()


def mean_weight(here, share: float, draws: int) -> Tensor:
    """E[w] under the code under test, read off the table's gradient, over all unordered draws."""
    outcomes, probability = unordered_outcomes(here, share, draws)
    found = on_outcomes(here, WakeSleep(draws=draws, proposal_share=share, kept_mass=1.0), outcomes)
    assert probability.sum().item() == pytest.approx(1.0)
    return -(probability.unsqueeze(-1) * found.table[:, :, 0] * len(outcomes)).sum(dim=0)


@settings(max_examples=20, derandomize=True)
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 4),
    scale=st.sampled_from([0.1, 1.0, 4.0]),
    draws=st.sampled_from([2, 3]),
    share=st.sampled_from([1.0, 0.5]),
    normaliser=st.sampled_from(["full", "candidates"]),
)
def test_the_expected_gradient_is_that_of_the_expected_weights(world, seed, k, scale, draws, share, normaliser) -> None:
    here = world(seed, b=1, n=6, k=k, scale=scale)
    objective = WakeSleep(draws=draws, proposal_share=share, normaliser=normaliser, kept_mass=1.0)
    outcomes, probability = all_outcomes(here, share, draws)
    found = on_outcomes(here, objective, outcomes)
    weight = expected_weight(here, share, draws)
    seen = {"full": 6, "candidates": k}[normaliser]
    for logits, gradient in ((here.prior_logits, found.prior), (here.posterior_logits, found.posterior)):
        among = torch.zeros(6, dtype=torch.float64)
        among[:seen] = logits.detach()[0, :seen].softmax(dim=-1)
        mean = (probability.unsqueeze(-1) * gradient * len(outcomes)).sum(dim=0)
        torch.testing.assert_close(mean, among - torch.nn.functional.pad(weight, (0, 6 - k)), **TIGHT)
    table = (probability[:, None, None] * found.table * len(outcomes)).sum(dim=0)
    torch.testing.assert_close(table, -weight.unsqueeze(-1) * here.present[0], **TIGHT)
    assert not found.closed_book.any()


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_the_loss_and_the_importance_estimate_of_every_single_outcome(world, normaliser) -> None:
    here = world(1, b=1, k=3)
    objective = WakeSleep(draws=2, proposal_share=0.7, normaliser=normaliser)
    total = 0.0
    p, q = (logits.detach()[0].softmax(dim=-1)[:3] for logits in (here.prior_logits, here.posterior_logits))
    p, q = (one / one.sum() if normaliser == "candidates" else one for one in (p, q))
    likelihood, r = here.log_likelihood()[0], proposal(here, 0.7)
    for drawn in itertools.product(range(3), repeat=2):
        estimate = on_outcomes(here, objective, torch.tensor([drawn])).estimate
        of = p * likelihood.exp() / r
        weight = self_normalised(drawn, of)
        loss = -(weight * (likelihood + p.log() + q.log())).sum()
        torch.testing.assert_close(estimate.loss.detach(), loss, **TIGHT)
        mean = of[list(drawn)].mean()
        torch.testing.assert_close(estimate.diagnostics["log_marginal"], mean.log(), **TIGHT)
        total += math.prod(r[k].item() for k in drawn) * estimate.diagnostics["log_marginal"].exp().item()
    assert total == pytest.approx((p * likelihood.exp()).sum().item())  # unbiased before the logarithm is taken


@pytest.mark.parametrize("share", [1.0, 0.5])
def test_the_sampler_has_the_law_that_was_enumerated(world, mean_equals, share: float) -> None:
    here = world(2, b=1, n=6, k=4)
    objective = WakeSleep(draws=3, proposal_share=share, kept_mass=1.0)
    found = here.copies(COPIES).differentiate(objective, seed=3)
    weight = expected_weight(here, share, 3)
    mean_equals(-found.table[:, :, 0] * COPIES, weight)
    padded = torch.nn.functional.pad(weight, (0, 2))
    mean_equals(-found.prior * COPIES, padded - here.prior_logits.detach()[0].softmax(dim=-1))
    mean_equals(-found.posterior * COPIES, padded - here.posterior_logits.detach()[0].softmax(dim=-1))


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_twice_the_draws_halve_the_bias(world, seed: int, share: float) -> None:
    """Exact, over all multinomial outcomes. n·bias has a limit c, so what is left, n·bias - c, is O(1/n) itself."""
    here = world(seed, b=1, n=3, k=3, t=1, scale=0.5)
    pi, limit = here.responsibilities()[0], leading_bias(here, share)
    bias = {draws: mean_weight(here, share, draws) - pi for draws in (8, 16, 32, 64)}
    assert bias[8].abs().max() > 1e-4  # there is a bias to speak of
    left = {draws: (draws * one - limit).norm().item() for draws, one in bias.items()}
    for draws in (8, 16, 32):
        assert bias[draws].norm().item() / bias[2 * draws].norm().item() == pytest.approx(2.0, abs=4.0 / draws)
        assert 0.4 < left[2 * draws] / left[draws] < 0.6
    assert left[64] < 0.05 * limit.norm().item()


@pytest.mark.parametrize("draws", [1, 2, 5])
def test_a_proposal_that_is_the_true_posterior_has_no_bias(world, draws: int) -> None:
    here = world(4, b=1, k=4)
    here.posterior_logits.data[:, :4] = here.responsibilities().log()
    torch.testing.assert_close(mean_weight(here, 1.0, draws), here.responsibilities()[0], **TIGHT)


def test_a_proposal_that_is_the_true_posterior_gives_the_exact_gradients_on_average(world, mean_equals) -> None:
    here = world(5, b=1)
    here.posterior_logits.data = here.responsibilities().log()
    exact = here.differentiate(JointStochasticApproximation(kept_mass=1.0))
    found = here.copies(COPIES).differentiate(WakeSleep(draws=2, kept_mass=1.0), seed=1)
    mean_equals(found.prior * COPIES, exact.prior[0])
    mean_equals(found.posterior * COPIES, exact.posterior[0])
    mean_equals(found.table[:, :, 0] * COPIES, exact.table[0, :, 0])


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_with_many_draws_the_gradients_become_exact(world, share: float, normaliser) -> None:
    """One estimate from a million draws: its bias is far below its standard error, which the delta method gives."""
    draws = 1_000_000
    here = world(6, b=1, k=5)
    found = here.differentiate(WakeSleep(draws, share, normaliser, kept_mass=1.0), seed=2)
    exact = here.differentiate(JointStochasticApproximation(normaliser=normaliser, kept_mass=1.0))
    pi, r = here.responsibilities()[0], proposal(here, share)
    distance = torch.eye(5, dtype=torch.float64) - pi  # row j, column k: 1[j = k] - π_k
    error = ((pi.square() / r).unsqueeze(-1) * distance.square()).sum(dim=0).div(draws).sqrt()
    allowed = -torch.special.ndtri(torch.tensor(FALSE_ALARM / 10, dtype=torch.float64)) * error
    for one, other in ((found.prior, exact.prior), (found.posterior, exact.posterior)):
        assert ((one - other)[0, :5].abs() <= allowed).all()
        assert (one - other)[0, 5].abs() < 1e-12
    assert ((found.table - exact.table)[0, :, 0].abs() <= allowed).all()
    told = found.estimate.diagnostics["log_marginal"] - exact.estimate.diagnostics["log_marginal"]
    assert told.abs() < 0.01


def test_a_blind_spot_of_q_stays_unseen_unless_the_prior_proposes_too(world) -> None:
    here = world(7, b=1)
    here.prior_logits.data[:] = 0.0
    here.table.data[:] = -3.0
    here.table.data[:, 2] = -0.1
    here.posterior_logits.data[:] = 0.0
    here.posterior_logits.data[:, 2] = -25.0
    pi = here.responsibilities()[0, 2].item()
    assert pi > 0.99
    copies = here.copies(2_000)
    blind, defended = (
        -copies.differentiate(WakeSleep(proposal_share=share, kept_mass=1.0), seed=1).table[:, 2, 0].sum().item()
        for share in (1.0, 0.5)
    )
    assert blind < 1e-6  # 2,000 visits of 50 draws at e^-25 / 5 each: seen with a chance of 3e-7
    # Half the draws come from the prior, where the passage has 1/6: all 50 miss it with a chance of (11/12)^50 = 0.013.
    assert defended == pytest.approx(pi * (1 - (11 / 12) ** 50), abs=0.02)


def test_each_distinct_draw_is_scored_once_and_counts_as_often_as_it_was_drawn(world) -> None:
    here = world(8, b=1)
    found = on_outcomes(here, WakeSleep(draws=5, kept_mass=1.0), torch.tensor([[3, 1, 3, 3, 1]]))
    assert (found.likelihood.without_gradient, found.likelihood.with_gradient) == (2, 2)
    of = omega(here, 1.0)
    share = 3 * of[3] / (3 * of[3] + 2 * of[1])
    torch.testing.assert_close(-found.table[0, 3, 0], share, **TIGHT)
    torch.testing.assert_close(-found.table[0, 1, 0], 1 - share, **TIGHT)
    size = found.estimate.diagnostics["effective_sample_size"]
    torch.testing.assert_close(size, 1 / (share**2 + (1 - share) ** 2), **TIGHT)
    efficiency = found.estimate.diagnostics["importance_efficiency"]
    by_hand = (3 * of[3] + 2 * of[1]) ** 2 / (5 * (3 * of[3] ** 2 + 2 * of[1] ** 2))
    torch.testing.assert_close(efficiency, by_hand, **TIGHT)


@pytest.mark.parametrize("mass", [0.3, 0.8, 0.99])
def test_pruning_touches_only_the_generator_and_by_no_more_than_it_says(world, mass: float) -> None:
    here = world(9, b=20)
    full = here.differentiate(WakeSleep(draws=8, kept_mass=1.0), seed=1)
    pruned = here.differentiate(WakeSleep(draws=8, kept_mass=mass), seed=1)
    torch.testing.assert_close(pruned.estimate.loss, full.estimate.loss, **TIGHT)
    torch.testing.assert_close(pruned.prior, full.prior, **TIGHT)
    torch.testing.assert_close(pruned.posterior, full.posterior, **TIGHT)
    missed = (pruned.table - full.table)[:, :, 0].sum(dim=-1) * 20
    assert (missed <= 1.0 - mass + 1e-12).all()
    assert (missed >= -1e-12).all()
    assert pruned.likelihood.with_gradient < full.likelihood.with_gradient


@pytest.mark.parametrize("share", [1.0, 0.5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_temperature_of_0_005_keeps_gradients_finite(world, share: float, dtype: torch.dtype) -> None:
    here = world(10, b=8, k=5, dtype=dtype)
    here.prior_logits.data /= 0.005
    here.posterior_logits.data /= 0.005
    found = here.differentiate(WakeSleep(proposal_share=share))
    assert found.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in found.leaves)
    assert found.table.any()


@pytest.mark.parametrize("missing", ["log_prior", "log_posterior"])
def test_a_candidate_that_one_retriever_lacks_is_absent(world, missing: str) -> None:
    here = world(11, b=1)
    hole = torch.tensor([[False, True, False, False, False, False]])
    scores = here.scores()
    holey = replace(scores, **{missing: getattr(scores, missing).masked_fill(hole, -math.inf)})
    objective = WakeSleep(draws=200)
    likelihood = here.likelihood()
    loss = objective(holey, likelihood, torch.Generator().manual_seed(0)).loss
    assert likelihood.without_gradient <= 5
    torch.testing.assert_close(loss, here.with_absent(hole).differentiate(objective).estimate.loss, **TIGHT)


def test_an_impossible_passage_has_no_weight(world) -> None:
    here = world(12, b=1)
    here.table.data[0, 2] = -math.inf
    found = on_outcomes(here, WakeSleep(draws=2), torch.tensor([[2, 4], [2, 2]]))
    assert found.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in found.leaves)
    assert found.table[0, 4, 0].item() == pytest.approx(-0.5)
    assert not found.prior[1].any()  # nothing that was drawn explains the target: the visit teaches nothing


def test_without_a_posterior_the_message_says_where_to_get_one(world) -> None:
    here = world(13)
    with pytest.raises(ValueError, match=r"WakeSleep needs log_posterior .*retriever\.posterior = true"):
        WakeSleep()(CandidateScores(here.scores().log_prior), here.likelihood(), torch.Generator())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"draws": 0}, "WakeSleep: draws is 0; it must be a whole number of at least 1"),
        ({"proposal_share": 0.0}, r"WakeSleep: proposal_share is 0\.0; it must be above 0 and at most 1"),
        ({"proposal_share": 1.5}, r"WakeSleep: proposal_share is 1\.5; it must be above 0 and at most 1"),
        ({"kept_mass": 0.0}, r"WakeSleep: kept_mass is 0\.0; it must be above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message: str) -> None:
    with pytest.raises(UserError, match=message):
        WakeSleep(**wrong)


def test_an_unknown_normaliser_is_refused() -> None:
    """Set behind the type checker of the tests, which would refuse the value first; users have none in front."""
    objective = WakeSleep()
    object.__setattr__(objective, "normaliser", "union")
    with pytest.raises(UserError, match="WakeSleep: normaliser is 'union'; it must be 'full' or 'candidates'"):
        objective.__post_init__()
