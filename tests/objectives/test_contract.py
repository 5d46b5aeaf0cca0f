"""What every objective promises, whatever its estimator: one test, all objectives and their settings."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

from retrograd.objectives import (
    OBJECTIVES,
    CandidateScores,
    Distillation,
    FrozenRetriever,
    JointStochasticApproximation,
    NoRetrieval,
    Objective,
    Reads,
    RelaxedTopK,
    ScoreFunction,
    StochasticTopK,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)

TIGHT = {"rtol": 1e-9, "atol": 1e-9}
EVERYWHERE = {"log_marginal", "log_likelihood", "generator_forwards", "generator_backwards"}
DIAGNOSTICS = EVERYWHERE | {
    "candidate_mass",
    "prior_entropy",
    "posterior_entropy",
    "responsibility_entropy",
    "effective_sample_size",
    "importance_efficiency",
    "kl_responsibilities_prior",
    "kl_responsibilities_posterior",
    "acceptance",
    "backward_saving",
    "distinct_proposals",
    "empty_share",
    "effective_neighbours",
    "slot_similarity",
    "vote",
    "unsupported_share",
}

# Prompts scored (without gradient, with gradient) for one query of six candidates, of which the third holds all but
# 1e-6 of the responsibilities and all but 1e-6 of the posterior retriever.
COSTS = [
    (TopKMarginal(), (0, 6)),
    (TopKMarginal(form="token"), (0, 6)),
    (JointStochasticApproximation(), (6, 1)),
    (JointStochasticApproximation(kept_mass=1.0), (6, 6)),
    (JointStochasticApproximation(posterior=False), (6, 1)),
    (JointStochasticApproximation(sampler="metropolis"), (1, 1)),
    (Variational(), (5, 1)),  # the weights are known before: only the one that counts is scored with gradient
    (Variational(kept_mass=1.0), (0, 6)),
    (Variational(form="published"), (4, 1)),
    (WakeSleep(), (1, 1)),
    (StochasticTopK(), (0, 1)),
    (StochasticTopK(slots=3, draws=4), (0, 4)),
    (RelaxedTopK(), (0, 1)),
    (RelaxedTopK(operator="hard", vote_weight=1.0), (0, 1)),
    (ScoreFunction(reward="elbo"), (0, 1)),
    (Vimco(), (0, 1)),
    (Distillation(), (6, 1)),
    (Distillation(reader="marginal"), (6, 1)),
    (Distillation(target="emdr2", reader="none"), (6, 0)),
    (Distillation(target="loop_kl_target_prior"), (6, 1)),
    (Distillation(target="loop_kl_target_prior", reader="marginal"), (12, 1)),
    (FrozenRetriever(), (0, 6)),
    (FrozenRetriever(form="together"), (0, 1)),
    (NoRetrieval(), (0, 1)),
]


@pytest.mark.parametrize(("objective", "cost"), COSTS, ids=repr)
def test_an_objective_costs_what_the_table_says(world, objective, cost: tuple[int, int]) -> None:
    here = world(0, b=1)
    here.table.data[:] = -6.0
    here.table.data[:, 2] = 0.0
    here.prior_logits.data[:] = 0.0
    here.posterior_logits.data[:] = torch.tensor([0.0, 0.0, 20.0, 0.0, 0.0, 0.0])
    found = here.differentiate(objective)
    assert (found.likelihood.without_gradient, found.likelihood.with_gradient) == cost


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_an_objective_is_a_frozen_value_that_needs_no_setting(kind) -> None:
    objective = kind()
    assert objective == kind()
    assert hash(objective) == hash(kind())
    assert isinstance(objective, Objective)
    for said in (objective.trains_retriever, objective.trains_generator, objective.needs_posterior):
        assert isinstance(said, bool)
    assert kind.__dataclass_params__.frozen
    for part in ("Equation.", "Paper.", "Bias.", "Gradient.", "Cost.", "Padding."):
        assert f"**{part}**" in kind.__doc__


def test_the_loss_is_a_scalar_and_diagnostics_are_numbers_to_read(world, objective) -> None:
    estimate = world(1, k=4).differentiate(objective).estimate
    assert estimate.loss.shape == ()
    assert estimate.loss.requires_grad
    assert EVERYWHERE <= set(estimate.diagnostics) <= DIAGNOSTICS
    for name, value in estimate.diagnostics.items():
        assert value.shape == (), name
        assert value.isfinite(), name
        assert not value.requires_grad, name


def test_reported_costs_are_the_counted_ones(world, objective) -> None:
    here = world(2, b=4, k=5)
    here.absent[0, 2:] = True
    found = here.differentiate(objective)
    said = found.estimate.diagnostics
    counted = found.likelihood.without_gradient + found.likelihood.with_gradient
    assert said["generator_forwards"].item() * 4 == pytest.approx(counted)
    assert said["generator_backwards"].item() * 4 == pytest.approx(found.likelihood.with_gradient)


def test_a_batch_of_two_is_the_mean_of_two_batches_of_one(world, objective) -> None:
    """Objectives draw query after query, so that one random stream serves a batch however it is cut."""
    both = world(3, b=2, k=5)
    found = both.differentiate(objective, rng=torch.Generator().manual_seed(3))
    rng = torch.Generator().manual_seed(3)
    parts = [both.of(lambda leaf, i=i: leaf[i : i + 1]).differentiate(objective, rng=rng) for i in range(2)]
    torch.testing.assert_close(found.estimate.loss, sum(part.estimate.loss for part in parts) / 2, **TIGHT)
    for i, part in enumerate(parts):
        for whole, alone in zip(found.leaves, part.leaves, strict=True):
            torch.testing.assert_close(whole[i : i + 1], alone / 2, **TIGHT)
    for name, value in found.estimate.diagnostics.items():
        torch.testing.assert_close(value, sum(part.estimate.diagnostics[name] for part in parts) / 2, **TIGHT)


def test_a_constant_added_to_all_scores_changes_nothing(world, objective) -> None:
    here = world(4, k=4)
    plain = here.differentiate(objective)
    here.prior_logits.data += 13.0
    here.posterior_logits.data -= 5.0
    shifted = here.differentiate(objective)
    torch.testing.assert_close(shifted.estimate.loss, plain.estimate.loss, **TIGHT)
    for one, other in zip(shifted.leaves, plain.leaves, strict=True):
        torch.testing.assert_close(one, other, **TIGHT)


def test_the_order_of_the_candidates_does_not_matter(world, exact_objective) -> None:
    here = world(5)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    plain = here.differentiate(exact_objective)
    moved = here.of(lambda leaf: leaf[:, order] if leaf.dim() > 1 and leaf.shape[1] == 6 else leaf)
    found = moved.differentiate(exact_objective)
    torch.testing.assert_close(found.estimate.loss, plain.estimate.loss, **TIGHT)
    for name in ("prior", "posterior", "table"):
        torch.testing.assert_close(getattr(found, name), getattr(plain, name)[:, order], **TIGHT)


def padded(here, where: list[int]):
    """Return scores, likelihood and table with candidates of ``-inf`` inserted before the columns ``where``."""
    column = torch.tensor([one for k in range(here.k) for one in ([-1] if k in where else []) + [k]])
    hole = column < 0
    scores = here.scores()
    of = lambda value: value[:, column.clamp(min=0)].masked_fill(hole, -math.inf)  # noqa: E731
    likelihood = here.likelihood()
    likelihood.table = here.table[:, column.clamp(min=0)].masked_fill(hole.unsqueeze(-1), -999.0)
    assert scores.log_posterior is not None
    return CandidateScores(of(scores.log_prior), of(scores.log_posterior)), likelihood


@pytest.mark.parametrize("where", [[0], [1, 3], [0, 1, 2, 3]])
def test_padding_is_absence(world, objective, where: list[int]) -> None:
    here = world(6, k=4)
    plain = here.differentiate(objective)
    scores, likelihood = padded(here, where)
    estimate = objective(scores, likelihood, torch.Generator().manual_seed(0))
    leaves = (here.prior_logits, here.posterior_logits, here.table, here.closed_book)
    found = torch.autograd.grad(estimate.loss, leaves, allow_unused=True)
    torch.testing.assert_close(estimate.loss, plain.estimate.loss, **TIGHT)
    for one, other in zip(found, plain.leaves, strict=True):
        torch.testing.assert_close(torch.zeros_like(other) if one is None else one, other, **TIGHT)
    for name, value in plain.estimate.diagnostics.items():
        torch.testing.assert_close(estimate.diagnostics[name], value, **TIGHT)


@pytest.mark.parametrize("present", [1, 0])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_query_of_nearly_or_wholly_absent_candidates_stays_finite(world, objective, present: int, dtype) -> None:
    here = world(7, b=3, k=4, dtype=dtype)
    here.absent[1, present:] = True
    here.previous = torch.tensor([1, 3, -1])
    found = here.differentiate(objective)
    assert found.estimate.loss.isfinite()
    assert all(value.isfinite() for value in found.estimate.diagnostics.values())
    assert all(leaf.isfinite().all() for leaf in found.leaves)
    assert not found.table[1, present:].any()
    if present == 0:
        assert not found.prior[1].any()
        assert not found.posterior[1].any()
        others = here.of(lambda leaf: leaf[[0, 2]])
        again = here.differentiate(objective, seed=1)
        if torch.equal(again.table, found.table):  # else it samples, and draws other numbers for other batches
            kept = others.differentiate(objective).prior
            torch.testing.assert_close(found.prior[[0, 2]] * 3, kept * 2, rtol=1e-5, atol=1e-6)
        assert found.estimate.last is None or found.estimate.last[1] == -1


def test_a_batch_without_any_candidate_has_a_loss_that_can_be_differentiated(world, objective) -> None:
    here = world(8).with_absent(torch.ones(2, 6, dtype=torch.bool))
    found = here.differentiate(objective)
    assert found.estimate.loss.isfinite()
    assert not found.prior.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_scores_give_a_full_precision_loss(world, objective, dtype: torch.dtype) -> None:
    here = world(9, k=5, scale=4.0, dtype=dtype)
    found = here.differentiate(objective)
    assert found.estimate.loss.dtype == torch.float32
    assert found.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in found.leaves)


def test_one_seed_gives_one_estimate_and_the_global_random_state_is_left_alone(world, objective) -> None:
    here = world(10, b=8)
    before = torch.random.get_rng_state()
    first, second = here.differentiate(objective, seed=5), here.differentiate(objective, seed=5)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first.estimate.loss, second.estimate.loss)
    assert torch.equal(first.table, second.table)


@pytest.mark.parametrize("kind", [one for one in OBJECTIVES if one is not NoRetrieval])
def test_probabilities_and_logits_are_refused(world, kind) -> None:
    here = world(11)
    scores = here.scores()
    for wrong in (scores.log_prior.exp(), here.prior_logits + 1.0):
        with pytest.raises(ValueError, match="log_prior: a row sums to"):
            kind()(CandidateScores(wrong, scores.log_posterior), here.likelihood(), torch.Generator())


def test_only_an_objective_that_says_so_touches_the_posterior(world, objective) -> None:
    found = world(12).differentiate(objective)
    assert found.posterior.any().item() == objective.needs_posterior


def test_an_objective_trains_what_it_says(world, objective) -> None:
    found = world(13).differentiate(objective)
    assert found.prior.any().item() == objective.trains_retriever
    assert (found.table.any() or found.closed_book.any()).item() == objective.trains_generator


def test_passages_reach_the_generator_as_the_objective_says(world, objective) -> None:
    calls = world(14).differentiate(objective).likelihood.calls
    learned = {reads for reads, with_gradient in calls if with_gradient}
    assert learned == ({objective.reads} if objective.trains_generator else set())


def test_a_model_answers_from_the_slots_that_it_was_trained_with(world, objective) -> None:
    """Where training draws slots, from those that it sees without noise."""
    if isinstance(objective, StochasticTopK):
        objective = dataclasses.replace(objective, noise=0.0, draws=1)
    here = world(15)
    likelihood, weights = here.likelihood(), []
    read = likelihood.at_mixture
    likelihood.at_mixture = lambda weight: weights.append(weight) or read(weight)
    objective(here.scores(), likelihood, torch.Generator().manual_seed(0))
    assert bool(weights) == (objective.reads == "slots")
    if objective.selection is not None:
        (trained,) = weights
        torch.testing.assert_close(objective.selection(here.scores()), trained, **TIGHT)


def test_the_calls_depend_on_the_candidates_only_where_each_is_left_out(world, objective) -> None:
    """Processes that share a generator make their calls together, so they must make the same number."""
    here = world(16, k=5)
    fewer = here.with_absent(torch.arange(5).expand(2, -1) >= 3)
    counted = [len(one.differentiate(objective).likelihood.calls) for one in (here, fewer)]
    assert (counted[0] != counted[1]) == objective.leaves_one_out


def test_settings_can_be_read_back(objective) -> None:
    assert type(objective)(**dataclasses.asdict(objective)) == objective


def test_objectives_that_train_on_soft_slots_answer_from_soft_slots(objective) -> None:
    """A model is tested on inputs of the kind that it has seen."""
    assert (objective.reads == Reads.SLOTS) == (objective.selection is not None)
    assert not objective.mixes_tokens or objective.reads == Reads.SEPARATELY
