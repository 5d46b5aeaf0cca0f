"""Variational: the bound against enumeration and autograd, and the published estimate, which is no bound."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from retrograd.objectives import CandidateScores, TopKMarginal, Variational
from retrograd.types import UserError

WORLDS = {"seed": st.integers(0, 10**6), "k": st.integers(1, 6), "scale": st.sampled_from([0.1, 1.0, 8.0])}
worlds = settings(max_examples=25, derandomize=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
FORMS = ("elbo", "published")


def parts(here) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """p over the base, q over the candidates and log p(y|x,z), all [B K] and attached to the leaves."""
    p = here.prior_logits.softmax(dim=-1)[:, : here.k]
    q = here.posterior_logits[:, : here.k].softmax(dim=-1)
    return p, q, (here.table * here.present.unsqueeze(1)).sum(dim=-1)


def log_z(here) -> torch.Tensor:
    """log Σ p L over the candidates, p over the whole base."""
    p, _, log_likelihood = parts(here)
    return (p * log_likelihood.exp()).sum(dim=-1).log().detach()


def elbo(here, beta: float) -> torch.Tensor:
    p, q, log_likelihood = parts(here)
    return (q * (log_likelihood + beta * (p.log() - q.log()))).sum(dim=-1)


def published(here, beta: float, passages: int) -> torch.Tensor:
    """Query by query, in loops: the few candidates of the highest q reconstruct, all of them pay the KL."""
    p, q, log_likelihood = parts(here)
    values = []
    for b in range(len(p)):
        few = sorted(range(here.k), key=lambda k: -q[b, k].item())[:passages]
        mass_q, mass_p = sum(q[b, k] for k in few), p[b].sum()
        reconstruction = sum(q[b, k] / mass_q * log_likelihood[b, k] for k in few)
        kl = sum(q[b, k] * (q[b, k] / (p[b, k] / mass_p)).log() for k in range(here.k))
        values.append(reconstruction - beta * kl)
    return torch.stack(values)


def check_against(here, found, value: torch.Tensor) -> None:
    """The loss is minus the mean of ``value``, and so are all three gradients."""
    loss = -value.mean()
    torch.testing.assert_close(found.estimate.loss, loss, **TIGHT)
    leaves = (here.prior_logits, here.posterior_logits, here.table)
    expected = torch.autograd.grad(loss, leaves, allow_unused=True)
    for one, other in zip((found.prior, found.posterior, found.table), expected, strict=True):
        torch.testing.assert_close(one, torch.zeros_like(one) if other is None else other, **TIGHT)
    assert not found.closed_book.any()


@worlds
@given(beta=st.sampled_from([0.0, 0.5, 1.0, 3.0]), **WORLDS)
def test_elbo_is_the_written_out_sum_and_its_gradient(world, beta: float, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    check_against(here, here.differentiate(Variational(beta=beta, kept_mass=1.0)), elbo(here, beta))


@worlds
@given(**WORLDS)
def test_elbo_gives_each_part_the_gradient_the_docstring_says(world, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    beta = 1.7
    found = here.differentiate(Variational(beta=beta, kept_mass=1.0))
    p, q, log_likelihood = (one.detach() for one in parts(here))
    prior = here.prior_logits.detach().softmax(dim=-1)
    torch.testing.assert_close(found.prior, -beta * (torch.nn.functional.pad(q, (0, 6 - k)) - prior) / 2, **TIGHT)
    a = log_likelihood + beta * (p.log() - q.log())
    expected = q * (a - (q * a).sum(dim=-1, keepdim=True))
    torch.testing.assert_close(found.posterior, -torch.nn.functional.pad(expected, (0, 6 - k)) / 2, **TIGHT)
    torch.testing.assert_close(found.table, -q.unsqueeze(-1) * here.present.unsqueeze(1) / 2, **TIGHT)


@worlds
@given(beta=st.sampled_from([1.0, 1.5, 4.0]), **WORLDS)
def test_elbo_is_a_lower_bound_and_its_gap_is_the_kl_to_the_responsibilities(world, beta, seed, k, scale) -> None:
    here = world(seed, b=1, n=6, k=k, scale=scale)
    value = -here.differentiate(Variational(beta=beta)).estimate.loss.detach()
    p, q, _ = (one.detach() for one in parts(here))
    pi = here.responsibilities()
    gap = (q * (q.log() - pi.log())).sum() + (beta - 1) * (q * (q.log() - p.log())).sum()
    torch.testing.assert_close(log_z(here).squeeze() - value, gap, **TIGHT)
    assert value <= log_z(here) + 1e-12


@pytest.mark.parametrize("k", [1, 3, 6])
def test_at_the_true_posterior_the_bound_is_tight_and_is_the_marginal(world, k: int) -> None:
    here = world(1, k=k)
    here.posterior_logits.data[:, :k] = here.responsibilities().log()
    found = here.differentiate(Variational(kept_mass=1.0))
    marginal = here.differentiate(TopKMarginal())
    torch.testing.assert_close(found.estimate.loss.detach(), -log_z(here).mean(), **TIGHT)
    torch.testing.assert_close(found.prior, marginal.prior, **TIGHT)
    torch.testing.assert_close(found.table, marginal.table, **TIGHT)
    assert found.posterior.abs().max() < 1e-12
    for name in set(found.estimate.diagnostics) & set(marginal.estimate.diagnostics):
        torch.testing.assert_close(
            found.estimate.diagnostics[name], marginal.estimate.diagnostics[name], **TIGHT, check_dtype=False
        )


def test_only_the_true_posterior_makes_the_bound_tight(world) -> None:
    here = world(2, b=1)
    pi = here.responsibilities()
    for shift in (-0.5, 0.5):
        here.posterior_logits.data = pi.log()
        here.posterior_logits.data[:, 0] += shift
        assert -here.differentiate(Variational()).estimate.loss < log_z(here) - 1e-3
    here.posterior_logits.data = pi.log()
    assert -here.differentiate(Variational(beta=2.0)).estimate.loss < log_z(here) - 1e-3
    assert -here.differentiate(Variational(beta=0.5)).estimate.loss > log_z(here) + 1e-3  # below 1 it is no bound


@worlds
@given(beta=st.sampled_from([0.0, 1.0, 2.5]), passages=st.integers(1, 7), **WORLDS)
def test_published_form_is_the_written_out_sum_and_its_gradient(world, beta, passages, seed, k, scale) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    objective = Variational(form="published", beta=beta, passages=passages, kept_mass=1.0)
    found = here.differentiate(objective)
    check_against(here, found, published(here, beta, passages))
    prior, q = here.prior_logits.detach()[:, :k].softmax(dim=-1), parts(here)[1].detach()
    torch.testing.assert_close(found.prior[:, :k], -beta * (q - prior) / 2, **TIGHT)
    assert found.prior[:, k:].abs().sum() < 1e-12


@pytest.mark.parametrize(
    ("passages", "candidates", "why"), [(1, 6, "two supports"), (2, 2, "a prior that forgets the rest of the base")]
)
def test_the_published_form_is_no_bound(world, passages: int, candidates: int, why: str) -> None:
    """Of six equally likely passages one or two explain the target; q is the prior, so that its KL is 0.

    Then log p(y|x) = -1 + log(explaining / 6) but for e^-50, while the published value is -1, whatever is read.
    """
    here = world(0, b=1, t=1)
    here.prior_logits.data[:] = 0.0
    here.posterior_logits.data[:] = 0.0
    here.table.data[:] = -50.0
    here.table.data[:, :passages] = -1.0
    exact = log_z(here).item()
    assert exact == pytest.approx(-1.0 + math.log(passages / 6), abs=1e-9)
    part = here.with_absent((torch.arange(6) >= candidates).unsqueeze(0))
    value = -part.differentiate(Variational(form="published", passages=passages)).estimate.loss.item()
    assert value == pytest.approx(-1.0, abs=1e-9), why
    assert value > exact + 1.0
    assert -part.differentiate(Variational()).estimate.loss.item() <= exact


def test_with_all_passages_read_and_the_whole_base_as_candidates_both_forms_agree(world) -> None:
    here = world(3)
    one, other = (here.differentiate(Variational(form=form, passages=6, beta=1.3)) for form in FORMS)
    torch.testing.assert_close(one.estimate.loss, other.estimate.loss, **TIGHT)
    for first, second in zip(one.leaves, other.leaves, strict=True):
        torch.testing.assert_close(first, second, **TIGHT)


@worlds
@given(form=st.sampled_from(FORMS), mass=st.sampled_from([0.3, 0.8, 0.99]), **WORLDS)
def test_pruning_touches_only_the_generator_and_by_no_more_than_it_says(world, form, mass, seed, k, scale) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    full = here.differentiate(Variational(form=form, passages=3, kept_mass=1.0))
    pruned = here.differentiate(Variational(form=form, passages=3, kept_mass=mass))
    torch.testing.assert_close(pruned.estimate.loss, full.estimate.loss, **TIGHT)
    torch.testing.assert_close(pruned.prior, full.prior, **TIGHT)
    torch.testing.assert_close(pruned.posterior, full.posterior, **TIGHT)
    # In the table ∇ log p(y|x,z) is 1 at each token, so the mass left out can be read off the first token.
    missed = (pruned.table - full.table)[:, :, 0].sum(dim=-1) * 2
    assert (missed <= 1.0 - mass + 1e-12).all()
    assert (missed >= -1e-12).all()


@pytest.mark.parametrize(("form", "scored"), [("elbo", 6), ("published", 4)])
@pytest.mark.parametrize("mass", [0.5, 0.99, 1.0])
def test_every_candidate_read_is_scored_exactly_once(world, form, scored: int, mass: float) -> None:
    here = world(4, b=3)
    found = here.differentiate(Variational(form=form, passages=4, kept_mass=mass))
    assert found.likelihood.without_gradient + found.likelihood.with_gradient == 3 * scored
    saved = found.likelihood.without_gradient / (3 * scored)
    assert found.estimate.diagnostics["backward_saving"].item() == pytest.approx(saved)
    assert (found.likelihood.without_gradient > 0) == (mass == 0.5)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_agree_with_finite_differences(world, form) -> None:
    here = world(5, b=2, k=5, t=2)
    objective = Variational(form=form, passages=3, beta=1.4, kept_mass=1.0)

    def loss(prior_logits, posterior_logits, table):
        moved = replace(here, prior_logits=prior_logits, posterior_logits=posterior_logits, table=table)
        return objective(moved.scores(), moved.likelihood(), torch.Generator()).loss

    assert torch.autograd.gradcheck(loss, (here.prior_logits, here.posterior_logits, here.table))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_temperature_of_0_005_keeps_gradients_finite(world, form, dtype: torch.dtype) -> None:
    here = world(6, b=8, k=5, dtype=dtype)
    here.prior_logits.data /= 0.005
    here.posterior_logits.data /= 0.005
    found = here.differentiate(Variational(form=form, passages=3))
    assert found.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in found.leaves)
    if dtype == torch.float32:
        exact = here.of(lambda leaf: leaf.double() if leaf.is_floating_point() else leaf)
        expected = exact.differentiate(Variational(form=form, passages=3))
        torch.testing.assert_close(found.estimate.loss.double(), expected.estimate.loss, rtol=1e-5, atol=1e-3)
        torch.testing.assert_close(found.prior.double(), expected.prior, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("missing", ["log_prior", "log_posterior"])
def test_a_candidate_that_one_retriever_lacks_is_absent(world, form, missing: str) -> None:
    here = world(7, b=1)
    hole = torch.tensor([[False, True, False, False, False, False]])
    scores = here.scores()
    holey = replace(scores, **{missing: getattr(scores, missing).masked_fill(hole, -math.inf)})
    objective = Variational(form=form)
    likelihood = here.likelihood()
    loss = objective(holey, likelihood, torch.Generator()).loss
    assert likelihood.without_gradient + likelihood.with_gradient == 5
    torch.testing.assert_close(loss, here.with_absent(hole).differentiate(objective).estimate.loss, **TIGHT)


def test_an_impossible_candidate_is_left_out_instead_of_making_the_loss_infinite(world) -> None:
    here = world(8, b=1)
    here.table.data[0, 2] = -math.inf
    found = here.differentiate(Variational(kept_mass=1.0))
    hole = torch.tensor([[False, False, True, False, False, False]])
    without = here.with_absent(hole).differentiate(Variational(kept_mass=1.0))
    torch.testing.assert_close(found.estimate.loss, without.estimate.loss, **TIGHT)
    torch.testing.assert_close(found.prior, without.prior, **TIGHT)
    torch.testing.assert_close(found.posterior, without.posterior, **TIGHT)
    assert -found.estimate.loss <= log_z(here)
    few = here.differentiate(Variational(form="published"))
    assert few.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in few.leaves)


def test_without_a_posterior_the_message_says_where_to_get_one(world) -> None:
    here = world(9)
    with pytest.raises(ValueError, match=r"Variational needs log_posterior .*retriever\.posterior = true"):
        Variational()(CandidateScores(here.scores().log_prior), here.likelihood(), torch.Generator())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"beta": -0.1}, r"Variational: beta is -0\.1; it must be a finite number of at least 0"),
        ({"beta": math.inf}, "Variational: beta is inf; it must be a finite number"),
        ({"beta": math.nan}, "Variational: beta is nan; it must be a finite number"),
        ({"passages": 0}, "Variational: passages is 0; it must be a whole number of at least 1"),
        ({"kept_mass": 0.0}, r"Variational: kept_mass is 0\.0; it must be above 0 and at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Variational(**wrong)


def test_an_unknown_form_is_refused() -> None:
    """Set behind the type checker of the tests, which would refuse the value first; users have none in front."""
    objective = Variational()
    object.__setattr__(objective, "form", "vrag")
    with pytest.raises(UserError, match="Variational: form is 'vrag'; it must be 'elbo' or 'published'"):
        objective.__post_init__()


@pytest.mark.parametrize("form", FORMS)
def test_where_the_target_is_impossible_the_bound_trains_nothing_and_the_published_estimate_its_kl(world, form) -> None:
    here = world(8, b=1)
    here.table.data.fill_(-math.inf)
    found = here.differentiate(Variational(form=form, kept_mass=1.0))
    assert found.estimate.loss.isfinite()
    assert not found.table.any()
    assert bool(found.prior.any()) == bool(found.posterior.any()) == (form == "published")
