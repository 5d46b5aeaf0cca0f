"""JointStochasticApproximation: exact weights against enumeration, sampled ones against the exact ones."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.objectives import JointStochasticApproximation, TopKMarginal

WORLDS = {"seed": st.integers(0, 10**6), "k": st.integers(1, 6), "scale": st.sampled_from([0.1, 1.0, 8.0])}
worlds = settings(max_examples=25, derandomize=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
EXACT = JointStochasticApproximation(kept_mass=1.0)
COPIES = 20_000


@worlds
@given(**WORLDS)
def test_exact_weights_give_all_three_gradients(world, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    found = here.differentiate(EXACT)
    pi = here.responsibilities()
    prior, posterior = (logits.detach().softmax(dim=-1) for logits in (here.prior_logits, here.posterior_logits))
    padded = torch.nn.functional.pad(pi, (0, 6 - k))
    torch.testing.assert_close(found.prior, -(padded - prior) / 2, **TIGHT)
    torch.testing.assert_close(found.posterior, -(padded - posterior) / 2, **TIGHT)
    torch.testing.assert_close(found.table, -pi.unsqueeze(-1) * here.present.unsqueeze(1) / 2, **TIGHT)
    assert not found.closed_book.any()
    per_query = pi * (here.log_likelihood() + prior[:, :k].log() + posterior[:, :k].log())
    torch.testing.assert_close(found.estimate.loss.detach(), -per_query.sum(dim=-1).mean(), **TIGHT)
    assert found.estimate.last is None


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
@pytest.mark.parametrize("k", [3, 6])
def test_exact_weights_give_prior_and_generator_the_gradient_of_the_marginal(world, normaliser: str, k: int) -> None:
    here = world(1, k=k)
    jsa = here.differentiate(JointStochasticApproximation(normaliser=normaliser, kept_mass=1.0))
    marginal = here.differentiate(TopKMarginal(normaliser=normaliser))
    torch.testing.assert_close(jsa.prior, marginal.prior, **TIGHT)
    torch.testing.assert_close(jsa.table, marginal.table, **TIGHT)
    shared = set(marginal.estimate.diagnostics) - {"generator_forwards"}
    for name in shared:
        torch.testing.assert_close(jsa.estimate.diagnostics[name], marginal.estimate.diagnostics[name], **TIGHT)


def test_candidate_normaliser_keeps_both_retrievers_among_the_candidates(world) -> None:
    here = world(2, k=3)
    found = here.differentiate(JointStochasticApproximation(normaliser="candidates", kept_mass=1.0))
    for logits, gradient in ((here.prior_logits, found.prior), (here.posterior_logits, found.posterior)):
        among = logits.detach()[:, :3].softmax(dim=-1)
        torch.testing.assert_close(gradient[:, :3], -(here.responsibilities() - among) / 2, **TIGHT)
        assert gradient[:, 3:].abs().max() < 1e-12


def test_a_posterior_retriever_that_is_right_is_left_alone(world) -> None:
    here = world(3)
    here.posterior_logits.data = here.responsibilities().log()
    found = here.differentiate(EXACT)
    assert found.posterior.abs().max() < 1e-12
    assert found.estimate.diagnostics["kl_responsibilities_posterior"].item() == pytest.approx(0.0, abs=1e-12)


def test_without_a_posterior_retriever_the_third_term_is_gone(world) -> None:
    here = world(4)
    objective = JointStochasticApproximation(posterior=False, kept_mass=1.0)
    found = here.differentiate(objective)
    with_posterior = here.differentiate(EXACT)
    assert not objective.needs_posterior
    assert not found.posterior.any()
    torch.testing.assert_close(found.prior, with_posterior.prior, **TIGHT)
    torch.testing.assert_close(found.table, with_posterior.table, **TIGHT)
    assert "kl_responsibilities_posterior" not in found.estimate.diagnostics


@worlds
@given(mass=st.sampled_from([0.3, 0.8, 0.95, 0.99]), **WORLDS)
def test_pruning_touches_only_the_generator_and_by_no_more_than_it_says(world, mass, seed, k, scale) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    full = here.differentiate(EXACT)
    pruned = here.differentiate(JointStochasticApproximation(kept_mass=mass))
    torch.testing.assert_close(pruned.estimate.loss, full.estimate.loss, **TIGHT)
    torch.testing.assert_close(pruned.prior, full.prior, **TIGHT)
    torch.testing.assert_close(pruned.posterior, full.posterior, **TIGHT)
    # In the table ∇ log p(y|x,z) is 1 at each token, so the mass left out can be read off the first token.
    missed = (pruned.table - full.table)[:, :, 0].sum(dim=-1) * 2
    assert (missed <= 1.0 - mass + 1e-12).all()
    assert (missed >= -1e-12).all()
    assert pruned.likelihood.with_gradient <= full.likelihood.with_gradient


@pytest.mark.parametrize("posterior", [True, False])
def test_a_stationary_chain_gives_the_exact_gradient_on_average(world, mean_equals, posterior: bool) -> None:
    here = world(5, b=1)
    exact = here.differentiate(EXACT)
    copies = here.copies(COPIES)
    copies.previous = torch.multinomial(
        here.responsibilities()[0], COPIES, replacement=True, generator=torch.Generator().manual_seed(1)
    )
    objective = JointStochasticApproximation(sampler="metropolis", draws=4, kept_mass=1.0, posterior=posterior)
    found = copies.differentiate(objective, seed=2)
    mean_equals(found.prior * COPIES, exact.prior[0])
    mean_equals(found.table[:, :, 0] * COPIES, exact.table[0, :, 0])
    if posterior:
        mean_equals(found.posterior * COPIES, exact.posterior[0])


def test_a_chain_carried_through_visits_forgets_how_it_began(world, mean_equals) -> None:
    """Each visit draws twice and hands its state on as the loop would: after 12 visits its law is π."""
    here = world(6, b=1, scale=0.7)
    copies = here.copies(COPIES)
    objective = JointStochasticApproximation(sampler="metropolis", draws=2)
    for visit in range(12):
        estimate = objective(copies.scores(), copies.likelihood(), torch.Generator().manual_seed(visit))
        copies.previous = estimate.last
    ratio = here.responsibilities() / here.posterior_logits.detach().softmax(dim=-1)
    assert (1 - 1 / ratio.max()) ** 24 < 1e-3  # what theory leaves of the start: less than the test can see
    mean_equals(torch.nn.functional.one_hot(copies.previous, 6).double(), here.responsibilities()[0])


def test_a_carried_state_is_weighed_with_todays_scores(world) -> None:
    """A chain stands where the target has become all but impossible: it must leave at the first proposal."""
    here = world(7, b=1)
    here.table.data[:, 2] = -100.0
    copies = here.copies(200)
    copies.previous = torch.full((200,), 2)
    copies.posterior_logits.data[:, 2] = -40.0
    objective = JointStochasticApproximation(sampler="metropolis", draws=1)
    estimate = objective(copies.scores(), copies.likelihood(), torch.Generator().manual_seed(0))
    assert estimate.last is not None
    assert (estimate.last != 2).all()
    assert estimate.diagnostics["acceptance"].item() == 1.0


def test_a_cold_chain_neither_reads_nor_leaves_a_state(world) -> None:
    here = world(8)
    objective = JointStochasticApproximation(sampler="metropolis", chain="cold", draws=5)
    plain = here.differentiate(objective)
    here.previous = torch.tensor([0, 3])
    told = here.differentiate(objective)
    assert plain.estimate.last is told.estimate.last is None
    assert torch.equal(plain.estimate.loss, told.estimate.loss)


def test_metropolis_scores_each_distinct_proposal_once(world) -> None:
    here = world(9, b=40)
    found = here.differentiate(JointStochasticApproximation(sampler="metropolis", draws=3))
    without, with_gradient = found.likelihood.without_gradient, found.likelihood.with_gradient
    assert without == round(found.estimate.diagnostics["distinct_proposals"].item() * 40)
    assert with_gradient <= without <= 4 * 40  # three proposals and the cold start
    assert without < 4 * 40  # some of 160 draws from six columns coincide, and are scored once


def test_a_longer_chain_comes_nearer(world) -> None:
    here = world(10, b=1)
    here.posterior_logits.data = 0.7 * here.responsibilities().log()
    exact = here.differentiate(EXACT).prior[0]
    errors = []
    for draws in (2, 50):
        found = here.copies(500).differentiate(JointStochasticApproximation(sampler="metropolis", draws=draws))
        errors.append((found.prior * 500 - exact).square().sum(dim=-1).mean().item())
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("sampler", ["exact", "metropolis"])
@pytest.mark.parametrize("missing", ["log_prior", "log_posterior"])
def test_a_candidate_that_one_retriever_lacks_is_absent(world, sampler: str, missing: str) -> None:
    here = world(11, b=1)
    hole = torch.tensor([[False, True, False, False, False, False]])
    scores = here.scores()
    holey = replace(scores, **{missing: getattr(scores, missing).masked_fill(hole, -math.inf)})
    objective = JointStochasticApproximation(sampler=sampler, kept_mass=1.0)
    likelihood = here.likelihood()
    loss = objective(holey, likelihood, torch.Generator().manual_seed(0)).loss
    assert likelihood.without_gradient == 5
    torch.testing.assert_close(loss, here.with_absent(hole).differentiate(objective).estimate.loss, **TIGHT)
