"""Distillation: each target and its KL written out; the reader alone teaches the generator."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from retrograd.objectives import CandidateScores, Distillation, FrozenRetriever, TopKMarginal
from retrograd.types import UserError

WORLDS = {"seed": st.integers(0, 10**6), "k": st.integers(1, 6), "scale": st.sampled_from([0.1, 1.0, 8.0])}
worlds = settings(max_examples=20, derandomize=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}

EMDR2, PDIST, LOOP, REPLUG = "emdr2", "pdist_kl_target_prior", "loop_kl_target_prior", "replug_kl_prior_target"
TARGETS = [EMDR2, PDIST, LOOP, REPLUG]


def prompt_of(here, b: int, columns: list[int]) -> float:
    """Return log p(y|x, the passages of the columns in this order), as the table's world defines it."""
    said = here.log_likelihood()
    return here.closed_book[b].item() + sum(said[b, k].item() * 0.5 ** (i + 1) for i, k in enumerate(columns))


def log_without_each(here) -> Tensor:
    """Return log p(y|x, all candidates but k, best prior first) for each query and k."""
    value = torch.empty(len(here.table), here.k, dtype=torch.float64)
    for b, scores in enumerate(here.scores().log_prior.detach()):
        best_first = sorted(range(here.k), key=lambda k: -scores[k].item())
        for k in range(here.k):
            value[b, k] = prompt_of(here, b, [one for one in best_first if one != k])
    return value


def target_of(here, objective: Distillation) -> Tensor:
    """Return the distribution that the retriever is to imitate, written out for each name."""
    mean = objective.length_normalised == "yes"
    if objective.length_normalised == "as_published":
        mean = objective.target in (PDIST, LOOP)
    length = here.present.sum(dim=-1, keepdim=True) if mean else 1
    if objective.target == EMDR2:
        return here.responsibilities()
    if objective.target == LOOP:
        return (-log_without_each(here) / length / objective.temperature).softmax(dim=-1)
    return (here.log_likelihood() / length / objective.temperature).softmax(dim=-1)


@pytest.mark.parametrize(
    "objective",
    [
        Distillation(EMDR2, "none"),
        Distillation(EMDR2, "none", normaliser="full"),
        Distillation(PDIST, "none"),
        Distillation(PDIST, "none", temperature=0.3, length_normalised="no", normaliser="full"),
        Distillation(LOOP, "none"),
        Distillation(LOOP, "none", temperature=0.3, length_normalised="no", normaliser="full"),
        Distillation(REPLUG, "none"),
        Distillation(REPLUG, "none", temperature=3.0, length_normalised="yes"),
    ],
    ids=repr,
)
@worlds
@given(**WORLDS)
def test_value_and_prior_gradient_are_what_is_written(world, objective, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=2, n=6, k=k, scale=scale)
    found = here.differentiate(objective)
    target = target_of(here, objective)
    log_base = here.prior_logits.detach().log_softmax(dim=-1)
    log_among = here.prior_logits.detach()[:, :k].log_softmax(dim=-1)
    full = objective.normaliser == "full"
    log_p = log_base[:, :k] if full else log_among
    if objective.target == REPLUG:
        ratio = log_p - target.log()
        kl = (log_p.exp() * ratio).sum(dim=-1)
        expected = pad(log_p.exp() * (ratio - kl.unsqueeze(-1)), (0, 6 - k))
    else:
        kl = (torch.xlogy(target, target) - target * log_p).sum(dim=-1)
        expected = (log_base.exp() if full else pad(log_p.exp(), (0, 6 - k))) - pad(target, (0, 6 - k))
    if objective.target == EMDR2:
        kl = -(log_p + here.log_likelihood()).logsumexp(dim=-1)
    torch.testing.assert_close(found.estimate.loss.detach(), kl.mean(), **TIGHT)
    torch.testing.assert_close(found.prior, expected / 2, **TIGHT)
    entropy = -torch.xlogy(target, target).sum(dim=-1).mean()
    torch.testing.assert_close(found.estimate.diagnostics["responsibility_entropy"], entropy, **TIGHT)
    assert not found.table.any()
    assert not found.closed_book.any()
    assert not found.posterior.any()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("reader", ["together", "marginal"])
def test_the_generator_learns_from_the_reader_alone_and_the_retriever_never(world, target: str, reader: str) -> None:
    here = world(1, b=3, k=5)
    found = here.differentiate(Distillation(target, reader, kept_mass=1.0))
    alone = here.differentiate(Distillation(target, "none"))
    control = here.differentiate(FrozenRetriever(reader))
    torch.testing.assert_close(found.prior, alone.prior, **TIGHT)
    torch.testing.assert_close(found.table, control.table, **TIGHT)
    torch.testing.assert_close(found.closed_book, control.closed_book, **TIGHT)
    torch.testing.assert_close(found.estimate.loss, alone.estimate.loss + control.estimate.loss, **TIGHT)
    shown = found.estimate.diagnostics["log_marginal"]
    torch.testing.assert_close(shown, control.estimate.diagnostics["log_marginal"], **TIGHT)


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
def test_emdr2_with_the_marginal_reader_has_the_gradients_of_the_marginal(world, normaliser: str) -> None:
    here = world(2, k=4)
    found = here.differentiate(Distillation(EMDR2, "marginal", normaliser=normaliser, kept_mass=1.0))
    marginal = here.differentiate(TopKMarginal(normaliser=normaliser))
    torch.testing.assert_close(found.prior, marginal.prior, **TIGHT)
    torch.testing.assert_close(found.table, marginal.table, **TIGHT)


def test_pruning_touches_the_generator_only_and_by_no_more_than_it_says(world) -> None:
    here = world(3, b=5)
    full, pruned = (here.differentiate(Distillation(reader="marginal", kept_mass=mass)) for mass in (1.0, 0.8))
    torch.testing.assert_close(pruned.estimate.loss, full.estimate.loss, **TIGHT)
    torch.testing.assert_close(pruned.prior, full.prior, **TIGHT)
    missed = (pruned.table - full.table)[:, :, 0].sum(dim=-1) * 5
    assert (missed <= 0.2 + 1e-12).all()
    assert (missed > 0.0).any()


@pytest.mark.parametrize("reader", ["together", "marginal", "none"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_value_does_not_know_how_wide_the_padding_is(world, target: str, reader: str) -> None:
    """A KL averaged over K would shrink by the number of padded candidates."""
    here = world(4, k=3)
    objective = Distillation(target, reader)
    plain = here.differentiate(objective)
    wide = CandidateScores(pad(here.scores().log_prior, (2, 20), value=-math.inf))
    likelihood = replace(here.likelihood(), table=pad(here.table, (0, 0, 2, 20), value=-999.0))
    loss = objective(wide, likelihood, torch.Generator()).loss
    torch.testing.assert_close(loss, plain.estimate.loss, **TIGHT)
    torch.testing.assert_close(torch.autograd.grad(loss, here.prior_logits)[0], plain.prior, **TIGHT)


def twice(here):
    """Return the world with every target repeated once."""
    double = here.of(lambda leaf: leaf)
    double.table = torch.cat([here.table, here.table], dim=-1).detach().requires_grad_()
    double.present = torch.cat([here.present, here.present], dim=-1)
    double.closed_book = (2 * here.closed_book).detach().requires_grad_()
    return double


@pytest.mark.parametrize(
    ("objective", "mean"),
    [
        (Distillation(EMDR2, "none"), False),
        (Distillation(PDIST, "none"), True),
        (Distillation(PDIST, "none", length_normalised="no"), False),
        (Distillation(LOOP, "none"), True),
        (Distillation(LOOP, "none", length_normalised="no"), False),
        (Distillation(REPLUG, "none"), False),
        (Distillation(REPLUG, "none", length_normalised="yes"), True),
    ],
    ids=repr,
)
def test_saying_the_target_twice_sharpens_a_sum_and_not_a_mean(world, objective: Distillation, mean: bool) -> None:
    once = world(5, b=1)
    once.prior_logits.data[:] = 0.0
    entropies = [
        here.differentiate(objective).estimate.diagnostics["responsibility_entropy"].item()
        for here in (once, twice(once))
    ]
    if mean:
        assert entropies[1] == pytest.approx(entropies[0], abs=1e-12)
    else:
        assert entropies[1] < entropies[0] - 0.01


@pytest.mark.parametrize("target", [PDIST, REPLUG])
def test_a_target_that_is_unlikely_everywhere_teaches_as_much_as_any(world, target: str) -> None:
    """The published REPLUG target, softmax(probability / τ), would be uniform here: all probabilities are tiny."""
    here = world(6, b=1)
    objective = Distillation(target, "none", length_normalised="no")
    likely = here.differentiate(objective)
    here.table.data -= 30.0
    assert here.log_likelihood().max().exp() < 1e-30
    torch.testing.assert_close(here.differentiate(objective).prior, likely.prior, **TIGHT)
    assert likely.prior.abs().max() > 0.01


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_of_one_token_keeps_its_prior_gradient(world, target: str) -> None:
    here = world(7, k=4, t=1)
    found = here.differentiate(Distillation(target))
    assert found.prior.abs().max() > 0.01
    if target != EMDR2:
        summed, mean = (here.differentiate(Distillation(target, length_normalised=one)) for one in ("no", "yes"))
        torch.testing.assert_close(summed.prior, mean.prior, **TIGHT)


@pytest.mark.parametrize("target", [PDIST, LOOP])
def test_at_a_low_temperature_the_target_is_the_best_candidate(world, target: str) -> None:
    here = world(8)
    found = here.differentiate(Distillation(target, "none", temperature=1e-4))
    evidence = -log_without_each(here) if target == LOOP else here.log_likelihood()
    best = torch.nn.functional.one_hot(evidence.argmax(dim=-1), 6).double()
    torch.testing.assert_close(found.prior, (here.prior_logits.detach().softmax(dim=-1) - best) / 2, **TIGHT)


@pytest.mark.parametrize("target", [PDIST, REPLUG])
def test_a_retriever_that_agrees_is_left_alone(world, target: str) -> None:
    here = world(9)
    objective = Distillation(target, "none")
    here.prior_logits.data = target_of(here, objective).log()
    found = here.differentiate(objective)
    assert found.estimate.loss.item() == pytest.approx(0.0, abs=1e-12)
    assert found.prior.abs().max() < 1e-12


@pytest.mark.parametrize(
    ("objective", "prompts", "with_gradient"),
    [
        (Distillation(), 6, 2),
        (Distillation(EMDR2, "none"), 6, 0),
        (Distillation(REPLUG, "marginal", kept_mass=1.0), 6, 6),
        (Distillation(LOOP), 8, 2),  # four prompts for the fuller query, and the other waits for it
        (Distillation(LOOP, "none"), 8, 0),
        (Distillation(LOOP, "marginal", kept_mass=1.0), 8 + 6, 6),
    ],
    ids=repr,
)
def test_it_costs_what_it_says(world, objective, prompts: int, with_gradient: int) -> None:
    here = world(10, b=2, k=4)
    here.absent[1, [0, 2]] = True
    found = here.differentiate(objective)
    assert (found.likelihood.without_gradient, found.likelihood.with_gradient) == (prompts, with_gradient)
    assert found.estimate.diagnostics["generator_forwards"].item() * 2 == prompts + with_gradient
    assert found.estimate.diagnostics["generator_backwards"].item() * 2 == with_gradient


def test_leaving_out_skips_what_is_absent(world) -> None:
    """A query with fewer candidates than its neighbour in the batch is scored as if it were alone."""
    here = world(11, b=2, k=4)
    here.absent[1, [0, 2]] = True
    both = here.differentiate(Distillation(LOOP))
    parts = [here.of(lambda leaf, i=i: leaf[i : i + 1]).differentiate(Distillation(LOOP)) for i in range(2)]
    torch.testing.assert_close(both.prior, torch.cat([part.prior for part in parts]) / 2, **TIGHT)
    torch.testing.assert_close(both.estimate.loss, sum(part.estimate.loss for part in parts) / 2, **TIGHT)


@pytest.mark.parametrize("normaliser", ["full", "candidates"])
@pytest.mark.parametrize("target", TARGETS)
def test_the_prior_gradient_is_that_of_the_value(world, target: str, normaliser: str) -> None:
    if target == REPLUG and normaliser == "full":
        return
    here = world(12, k=4)

    def loss(logits: Tensor) -> Tensor:
        moved = replace(here, prior_logits=logits)
        return Distillation(target, normaliser=normaliser)(moved.scores(), here.likelihood(), torch.Generator()).loss

    assert torch.autograd.gradcheck(loss, [here.prior_logits])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("reader", ["together", "marginal"])
@pytest.mark.parametrize("target", TARGETS)
def test_scores_at_a_temperature_of_0_005_have_finite_gradients(world, target: str, reader: str, dtype) -> None:
    here = world(13, b=8, k=5, dtype=dtype)
    here.prior_logits.data /= 0.005
    objectives = [Distillation(target, reader)]
    if target != EMDR2:
        objectives.append(Distillation(target, reader, temperature=0.005))
    for objective in objectives:
        found = here.differentiate(objective)
        assert found.estimate.loss.isfinite()
        assert all(leaf.isfinite().all() for leaf in found.leaves)


@pytest.mark.parametrize("impossible", [slice(0, 1), slice(1, None), slice(0, None)])
@pytest.mark.parametrize("reader", ["marginal", "none"])
@pytest.mark.parametrize("target", TARGETS)
def test_passages_under_which_the_target_is_impossible_break_nothing(world, target, reader, impossible) -> None:
    here = world(14, b=3, k=4)
    here.table.data[:, impossible] = -math.inf
    found = here.differentiate(Distillation(target, reader))
    assert found.estimate.loss.isfinite()
    assert found.prior.isfinite().all()
    assert found.table.isfinite().all()


def test_replug_leaves_out_what_is_impossible(world) -> None:
    here = world(15, b=1, k=4)
    without = here.with_absent(torch.tensor([[False, True, False, False]])).differentiate(Distillation(REPLUG, "none"))
    here.table.data[:, 1] = -math.inf
    found = here.differentiate(Distillation(REPLUG, "none"))
    torch.testing.assert_close(found.prior, without.prior, **TIGHT)
    torch.testing.assert_close(found.estimate.loss, without.estimate.loss, **TIGHT)


def test_no_posterior_retriever_is_needed(world) -> None:
    here = world(16)
    bare = replace(here.scores(), log_posterior=None)
    assert not Distillation().needs_posterior
    assert Distillation()(bare, here.likelihood(), torch.Generator()).loss.isfinite()


@pytest.mark.parametrize(
    ("setting", "advice"),
    [
        ({"target": "pdist"}, "target is 'pdist'; it must be 'emdr2' or 'pdist_kl_target_prior' or"),
        ({"reader": "fid"}, "reader is 'fid'; it must be 'together' or 'marginal' or 'none'"),
        ({"length_normalised": "mean"}, "length_normalised is 'mean'; it must be 'as_published' or 'yes' or 'no'"),
        ({"normaliser": "k"}, "normaliser is 'k'; it must be 'full' or 'candidates'"),
        ({"kept_mass": 0.0}, "kept_mass is 0.0; it must be above 0 and at most 1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0 and finite"),
        ({"temperature": math.nan}, "temperature is nan; it must be above 0 and finite"),
        ({"target": REPLUG, "normaliser": "full"}, "averages over the prior.*set normaliser = 'candidates'"),
        ({"target": EMDR2, "temperature": 0.1}, "neither a temperature nor.*set target = 'pdist_kl_target_prior'"),
        ({"target": EMDR2, "length_normalised": "yes"}, "length_normalised = 'no'"),
    ],
)
def test_a_setting_that_cannot_be_says_what_can(setting: dict[str, object], advice: str) -> None:
    """Values are set behind the type checker of the tests, which would refuse some first; users have none."""
    objective = Distillation()
    for name, value in setting.items():
        object.__setattr__(objective, name, value)
    with pytest.raises(UserError, match=advice):
        objective.__post_init__()
