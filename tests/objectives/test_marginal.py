"""TopKMarginal: value and gradient against enumeration, for each form and normaliser."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.objectives import CandidateScores, TokenLogLikelihood, TopKMarginal

WORLDS = {"seed": st.integers(0, 10**6), "k": st.integers(1, 6), "scale": st.sampled_from([0.1, 1.0, 8.0])}
worlds = settings(max_examples=25, derandomize=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def log_z(here) -> torch.Tensor:
    """log p(y|x) over the candidates, with the prior over the whole base."""
    return (here.scores().log_prior.detach() + here.log_likelihood()).logsumexp(dim=-1)


@worlds
@given(**WORLDS)
def test_full_normaliser_gives_pi_minus_p_over_the_whole_base(world, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    found = here.differentiate(TopKMarginal())
    torch.testing.assert_close(found.estimate.loss.detach(), -log_z(here).mean(), **TIGHT)
    prior = here.prior_logits.detach().softmax(dim=-1)
    pi = torch.nn.functional.pad(here.responsibilities(), (0, 6 - k))
    torch.testing.assert_close(found.prior, -(pi - prior) / 2, **TIGHT)
    per_token = here.responsibilities().unsqueeze(-1) * here.present.unsqueeze(1)
    torch.testing.assert_close(found.table, -per_token / 2, **TIGHT)
    assert not found.posterior.any()
    assert not found.closed_book.any()


@worlds
@given(**WORLDS)
def test_candidate_normaliser_gives_pi_minus_p_over_the_candidates(world, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    found = here.differentiate(TopKMarginal(normaliser="candidates"))
    prior = here.prior_logits.detach()[:, :k].softmax(dim=-1)
    expected = -(prior * here.log_likelihood().exp()).sum(dim=-1).log().mean()
    torch.testing.assert_close(found.estimate.loss.detach(), expected, **TIGHT)
    torch.testing.assert_close(found.prior[:, :k], -(here.responsibilities() - prior) / 2, **TIGHT)
    torch.testing.assert_close(found.prior[:, k:], torch.zeros(2, 6 - k).double(), **TIGHT)


@pytest.mark.parametrize("form", ["sequence", "token"])
def test_over_the_whole_base_both_normalisers_are_exact(world, form: str) -> None:
    here = world(3)
    full, candidates = (here.differentiate(TopKMarginal(form, normaliser)) for normaliser in ("full", "candidates"))
    torch.testing.assert_close(full.estimate.loss, candidates.estimate.loss, **TIGHT)
    torch.testing.assert_close(full.prior, candidates.prior, **TIGHT)


@worlds
@given(**WORLDS)
def test_the_full_normaliser_is_a_lower_bound_that_grows_with_k(world, seed: int, k: int, scale: float) -> None:
    whole = world(seed, k=6, scale=scale)
    exact = log_z(whole).mean().item()
    part = world(seed, k=6, scale=scale).with_absent((torch.arange(6) >= k).expand(2, 6))
    value = -part.differentiate(TopKMarginal()).estimate.loss.item()
    assert value <= exact + 1e-12
    if k == 6:
        assert value == pytest.approx(exact, abs=1e-12)


def test_a_renormalised_top_k_is_no_bound(world) -> None:
    """Two candidates explain the target, hold little of the prior, and claim all of it; the others explain nothing."""
    whole = world(0, b=1, t=1)
    whole.prior_logits.data[:, :2] = -5.0
    whole.table.data[:] = -50.0
    whole.table.data[:, :2] = -0.1
    exact = log_z(whole).item()
    part = whole.with_absent((torch.arange(6) >= 2).unsqueeze(0))
    assert exact < -4.0
    assert -part.differentiate(TopKMarginal(normaliser="candidates")).estimate.loss.item() == pytest.approx(-0.1)
    assert -part.differentiate(TopKMarginal()).estimate.loss.item() == pytest.approx(exact)


@worlds
@given(**WORLDS)
def test_token_form_is_a_mixture_at_every_token(world, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    found = here.differentiate(TopKMarginal(form="token", normaliser="candidates"))
    prior = here.prior_logits.detach()[:, :k].softmax(dim=-1)
    joint = prior.unsqueeze(-1) * here.table.detach().exp()
    log_token = joint.sum(dim=1).log() * here.present
    torch.testing.assert_close(found.estimate.loss.detach(), -log_token.sum(dim=-1).mean(), **TIGHT)
    pi = joint / joint.sum(dim=1, keepdim=True) * here.present.unsqueeze(1)
    torch.testing.assert_close(found.table, -pi / 2, **TIGHT)
    length = here.present.sum(dim=-1, keepdim=True)
    torch.testing.assert_close(found.prior[:, :k], -(pi.sum(dim=-1) - length * prior) / 2, **TIGHT)


@pytest.mark.parametrize("k", [2, 6])
def test_token_form_pays_the_missing_mass_once(world, k: int) -> None:
    here = world(5, k=k)
    mass = here.scores().log_prior.detach().logsumexp(dim=-1).mean()
    once = here.differentiate(TopKMarginal(form="token")).estimate.loss
    free = here.differentiate(TopKMarginal(form="token", normaliser="candidates")).estimate.loss
    torch.testing.assert_close(once - free, -mass, **TIGHT)


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_a_target_of_one_token_is_the_same_in_both_forms_and_keeps_its_prior_gradient(world, normaliser: str) -> None:
    here = world(6, k=4, t=1)
    sequence = here.differentiate(TopKMarginal("sequence", normaliser))
    token = here.differentiate(TopKMarginal("token", normaliser))
    torch.testing.assert_close(sequence.estimate.loss, token.estimate.loss, **TIGHT)
    for one, other in zip(sequence.leaves, token.leaves, strict=True):
        torch.testing.assert_close(one, other, **TIGHT)
    assert token.prior.abs().max() > 0.01


def test_saying_the_target_twice_sharpens_the_responsibilities(world) -> None:
    """The likelihood is a sum over tokens, never a mean: twice the evidence, a sharper posterior."""
    once = world(7, b=1)
    once.prior_logits.data[:] = 0.0
    twice = once.of(lambda leaf: leaf)
    twice.table = torch.cat([once.table, once.table], dim=-1).detach().requires_grad_()
    twice.present = torch.cat([once.present, once.present], dim=-1)
    entropies = [
        here.differentiate(TopKMarginal()).estimate.diagnostics["responsibility_entropy"].item()
        for here in (once, twice)
    ]
    assert entropies[1] < entropies[0] - 0.05


@pytest.mark.parametrize("form", ["sequence", "token"])
def test_a_passage_stored_twice_with_half_the_prior_changes_nothing(world, form: str) -> None:
    here = world(8)
    scores, likelihood = here.scores(), here.likelihood()
    doubled = torch.tensor([0, 1, 2, 2, 3, 4, 5])
    share = torch.zeros(7, dtype=torch.float64)
    share[2:4] = math.log(0.5)
    copied = CandidateScores(scores.log_prior[:, doubled] + share)
    likelihood.table = here.table[:, doubled]
    loss = TopKMarginal(form)(copied, likelihood, torch.Generator()).loss
    found = torch.autograd.grad(loss, (here.prior_logits, here.table))
    plain = here.differentiate(TopKMarginal(form))
    torch.testing.assert_close(loss, plain.estimate.loss, **TIGHT)
    torch.testing.assert_close(found[0], plain.prior, **TIGHT)
    torch.testing.assert_close(found[1], plain.table, **TIGHT)


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_what_stands_where_a_target_has_no_token_is_not_read(world, normaliser: str) -> None:
    here = world(10, t=4)
    assert not here.present.all()
    plain = here.differentiate(TopKMarginal("token", normaliser)).estimate

    class Stray(type(here.likelihood())):
        def tokens_at(self, column):
            tokens = super().tokens_at(column)
            return TokenLogLikelihood(tokens.value.masked_fill(~self.present.unsqueeze(1), -7.0), self.present)

    stray = Stray(here.table, here.closed_book, here.present)
    estimate = TopKMarginal("token", normaliser)(here.scores(), stray, torch.Generator())
    torch.testing.assert_close(estimate.loss, plain.loss, **TIGHT)
    for name, value in plain.diagnostics.items():
        torch.testing.assert_close(estimate.diagnostics[name], value, **TIGHT)


def test_one_candidate_alone_has_all_the_responsibility(world) -> None:
    here = world(9, k=1)
    found = here.differentiate(TopKMarginal(normaliser="candidates"))
    assert not found.prior.abs().gt(1e-15).any()
    assert found.estimate.diagnostics["effective_sample_size"].item() == pytest.approx(1.0)
