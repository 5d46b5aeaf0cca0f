"""Candidates sampled from the tail: every sum over them is an unbiased estimate of the sum over the whole base."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from retrograd.objectives import (
    CandidateScores,
    Distillation,
    FrozenRetriever,
    JointStochasticApproximation,
    RelaxedTopK,
    StochasticTopK,
    TopKMarginal,
    Variational,
    WakeSleep,
)
from retrograd.objectives.functional import log_multiplicity

N, HEAD = 6, 2
DRAWS = 3  # of two draws, shares of the draws and shares of the distinct rows are the same
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def log_prior() -> Tensor:
    return torch.randn(N, generator=torch.Generator().manual_seed(0), dtype=torch.float64).log_softmax(-1)


def every_sequence_of_draws(prior: Tensor) -> list[tuple[float, Tensor]]:
    """Return (probability, times drawn [N]) of all sequences of draws from the prior over the rows behind the head."""
    outside = prior[HEAD:].exp() / prior[HEAD:].exp().sum()
    found = []
    for rows in itertools.product(range(N - HEAD), repeat=DRAWS):
        times = torch.zeros(N, dtype=torch.float64)
        for row in rows:
            times[HEAD + row] += 1
        found.append((float(math.prod(outside[row] for row in rows)), times))
    return found


def candidates(prior: Tensor, times: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the head and of what was drawn, and their multiplicity."""
    column = torch.cat([torch.arange(HEAD), times.nonzero().flatten()])
    return column, log_multiplicity(prior[column].unsqueeze(0), times[column].unsqueeze(0))


def test_what_candidates_stand_for_is_the_whole_base_and_sums_are_unbiased() -> None:
    prior = log_prior()
    f = torch.arange(1.0, N + 1, dtype=torch.float64)
    mean = 0.0
    for probability, times in every_sequence_of_draws(prior):
        column, multiplicity = candidates(prior, times)
        stands_for = (prior[column] + multiplicity[0]).exp()
        assert stands_for.sum().item() == pytest.approx(1.0)
        assert not multiplicity[0, :HEAD].any()
        mean += probability * float((stands_for * f[column]).sum())
    assert mean == pytest.approx(float((prior.exp() * f).sum()))


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_marginal_is_unbiased_whatever_the_tail_is_drawn_from(world, share: float) -> None:
    """From the prior, from another distribution, and from a mixture; the prior alone gives weights that sum to 1."""
    here = world(3, b=1, n=N, k=N)
    prior = here.scores().log_prior[0].detach()
    other = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64).log_softmax(-1)
    proposal = (share * other.exp() + (1 - share) * prior.exp()).log()
    expected = (prior + here.log_likelihood()[0]).exp()
    mean, mass = torch.zeros((), dtype=torch.float64), 0.0
    for probability, times in every_sequence_of_draws(proposal):
        column = torch.cat([torch.arange(HEAD), times.nonzero().flatten()])
        multiplicity = log_multiplicity(proposal[column].unsqueeze(0), times[column].unsqueeze(0))[0]
        scores = CandidateScores(prior[column].unsqueeze(0), log_multiplicity=multiplicity.unsqueeze(0))
        likelihood = here.likelihood()
        likelihood.table = here.table[:, column]
        mean += probability * (-TopKMarginal()(scores, likelihood, torch.Generator()).loss.detach()).exp()
        represented = float((prior[column] + multiplicity).exp().sum())
        assert share > 0 or represented == pytest.approx(1.0)
        mass += probability * represented
    torch.testing.assert_close(mean, expected.sum(), **TIGHT)
    assert mass == pytest.approx(1.0)


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_the_marginal_is_unbiased_and_the_gradient_is_that_of_its_log(world, normaliser: str) -> None:
    here = world(3, b=1, n=N, k=N)
    prior = here.scores().log_prior[0].detach()
    mean = 0.0
    for probability, times in every_sequence_of_draws(prior):
        column, multiplicity = candidates(prior, times)
        leaf = here.prior_logits.detach().clone().requires_grad_()
        likelihood = here.likelihood()
        likelihood.table = here.table[:, column]
        scores = CandidateScores(leaf.log_softmax(-1)[:, column], log_multiplicity=multiplicity)
        loss = TopKMarginal(normaliser=normaliser)(scores, likelihood, torch.Generator()).loss
        mean += probability * float((-loss).detach().exp())
        weight = (prior[column] + multiplicity[0] + here.log_likelihood()[0, column]).softmax(-1)
        expected = torch.zeros(N, dtype=torch.float64).index_add(0, column, weight)
        if normaliser == "full":
            expected -= prior.exp()
        else:  # renormalised over what the candidates stand for, which is everything already
            expected = expected.index_add(0, column, -(prior[column] + multiplicity[0]).exp())
        (found,) = torch.autograd.grad(-loss, leaf)
        torch.testing.assert_close(found[0], expected, **TIGHT)
    assert mean == pytest.approx(float((prior + here.log_likelihood()[0]).exp().sum()))


def test_exact_weights_follow_the_marginal(world) -> None:
    here = world(4, b=1, n=N, k=N)
    scores = here.scores()
    times = torch.tensor([[0.0, 0.0, 3.0, 0.0, 1.0, 2.0]], dtype=torch.float64)
    multiplicity = log_multiplicity(scores.log_prior.detach(), times)
    found = []
    for objective in (TopKMarginal(), JointStochasticApproximation(posterior=False, kept_mass=1.0)):
        given = CandidateScores(here.scores().log_prior, None, log_multiplicity=multiplicity)
        loss = objective(given, here.likelihood(), torch.Generator()).loss
        found.append(torch.autograd.grad(loss, (here.prior_logits, here.table)))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, **TIGHT)


def test_a_head_that_holds_everything_leaves_nothing_to_stand_for() -> None:
    prior = torch.tensor([[0.0, -200.0, -201.0]])
    found = log_multiplicity(prior, torch.tensor([[0.0, 1.0, 1.0]]))
    assert found[0, 0] == 0
    assert not found.isnan().any()
    assert ((prior + found).exp()[0, 1:] == 0).all()


@pytest.mark.parametrize(
    "objective",
    [
        JointStochasticApproximation(sampler="metropolis"),
        Variational(),
        WakeSleep(),
        Distillation(),
        StochasticTopK(),
        RelaxedTopK(),
        FrozenRetriever(form="together"),
    ],
    ids=repr,
)
def test_objectives_that_would_take_them_for_single_passages_refuse_them(world, objective) -> None:
    scores = world(5).scores()
    sampled = CandidateScores(
        scores.log_prior, scores.log_posterior, log_multiplicity=torch.zeros_like(scores.log_prior)
    )
    with pytest.raises(ValueError, match=r"set training\.tail = 0"):
        objective(sampled, world(5).likelihood(), torch.Generator())
