"""ScoreFunction and Vimco: expectations over every possible tuple of draws against autograd of the enumerated J."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import pad

from retrograd.objectives import ScoreFunction, TopKMarginal, Vimco
from retrograd.types import UserError

WORLDS = {"seed": st.integers(0, 10**6), "k": st.integers(1, 6), "scale": st.sampled_from([0.1, 1.0, 8.0])}
worlds = settings(max_examples=15, derandomize=True)
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
COPIES = 20_000

SCORE_FUNCTIONS = [
    ScoreFunction(reward, baseline, draws=2)
    for reward in ("log_likelihood", "likelihood", "elbo")
    for baseline in ("none", "leave_one_out")
]
VIMCOS = [
    Vimco(draws=2),
    Vimco(draws=2, normaliser="candidates"),
    Vimco(draws=2, proposal_share=0.6),
    Vimco(draws=2, proposal="prior"),
    Vimco(draws=2, proposal="prior", normaliser="candidates"),
]


def tuples(k: int, draws: int) -> Tensor:
    """All k^draws outcomes of the draws, one a row."""
    return torch.cartesian_prod(*[torch.arange(k)] * draws).reshape(-1, draws)


def log_sampler(objective: ScoreFunction | Vimco, log_p: Tensor, log_q: Tensor) -> Tensor:
    """The law of one draw, over the candidates."""
    p, q = (log.exp() / log.exp().sum() for log in (log_p, log_q))
    if not objective.needs_posterior:
        return p.log()
    share = objective.proposal_share if isinstance(objective, Vimco) else 1.0
    return (share * q + (1 - share) * p).log()


def enumerated(objective: ScoreFunction | Vimco, prior: Tensor, posterior: Tensor, log_l: Tensor) -> Tensor:
    """J, or L_n, of one query: written out, differentiable in the logits and in the log-likelihoods [K]."""
    log_p, log_q = (logits.log_softmax(dim=-1)[: len(log_l)] for logits in (prior, posterior))
    log_r = log_sampler(objective, log_p, log_q)
    if isinstance(objective, Vimco):
        if objective.normaliser == "candidates":
            log_p = log_p - log_p.exp().sum().log()
        drawn = tuples(len(log_l), objective.draws)
        omega = (log_p + log_l - log_r).exp()
        return (log_r[drawn].sum(dim=-1).exp() * omega[drawn].mean(dim=-1).log()).sum()
    if objective.reward == "likelihood":
        return (log_r.exp() * log_l.exp()).sum()
    if objective.reward == "elbo":
        return (log_r.exp() * (log_p + log_l - log_r)).sum()
    return (log_r.exp() * log_l).sum()


def exact(objective: ScoreFunction | Vimco, here) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """-J of the first query and its gradient with respect to prior logits, posterior logits and log-likelihoods."""
    leaves = [one.detach()[0].clone().requires_grad_() for one in (here.prior_logits, here.posterior_logits)]
    leaves.append(here.log_likelihood()[0].clone().requires_grad_())
    value = -enumerated(objective, *leaves)
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    filled = [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, found, strict=True)]
    return value.detach(), *filled


def with_draws(here, objective: ScoreFunction | Vimco, drawn: Tensor):
    """The estimate of one copy of the first query for each row of ``drawn``, which stands in for the random draws."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("retrograd.objectives.score_function.propose", lambda *_: drawn)
        return here.copies(len(drawn)).differentiate(objective)


def probability_of(here, objective: ScoreFunction | Vimco, drawn: Tensor) -> Tensor:
    log_p, log_q = here.scores().log_prior.detach()[0], here.scores().log_posterior.detach()[0]
    return log_sampler(objective, log_p, log_q)[drawn].sum(dim=-1).exp()


@pytest.mark.parametrize("objective", SCORE_FUNCTIONS + VIMCOS, ids=repr)
@worlds
@given(**WORLDS)
def test_over_all_pairs_of_draws_the_gradient_is_exact(world, objective, seed: int, k: int, scale: float) -> None:
    here = world(seed, b=1, n=6, k=k, scale=scale)
    drawn = tuples(k, 2)
    found = with_draws(here, objective, drawn)
    weight = probability_of(here, objective, drawn) * len(drawn)
    _, prior, posterior, log_l = exact(objective, here)
    torch.testing.assert_close((weight.unsqueeze(-1) * found.prior).sum(dim=0), prior, **TIGHT)
    torch.testing.assert_close((weight.unsqueeze(-1) * found.posterior).sum(dim=0), posterior, **TIGHT)
    per_token = (weight.view(-1, 1, 1) * found.table).sum(dim=0)
    torch.testing.assert_close(per_token, log_l.unsqueeze(-1) * here.present[0], **TIGHT)
    assert not found.closed_book.any()


@pytest.mark.parametrize("objective", SCORE_FUNCTIONS + VIMCOS, ids=repr)
def test_over_all_triples_of_draws_value_and_gradient_are_exact(world, objective) -> None:
    here, objective = world(21, b=1, k=3), replace(objective, draws=3)
    drawn = tuples(3, 3)
    weight = probability_of(here, objective, drawn)
    losses = torch.stack([with_draws(here, objective, one.unsqueeze(0)).estimate.loss.detach() for one in drawn])
    value, prior, posterior, _ = exact(objective, here)
    torch.testing.assert_close((weight * losses).sum(), value, **TIGHT)
    found = with_draws(here, objective, drawn)
    share = weight.unsqueeze(-1) * len(drawn)
    torch.testing.assert_close((share * found.prior).sum(dim=0), prior, **TIGHT)
    torch.testing.assert_close((share * found.posterior).sum(dim=0), posterior, **TIGHT)


@pytest.mark.parametrize("objective", VIMCOS[:4], ids=repr)
def test_the_enumerated_bound_agrees_with_finite_differences(world, objective) -> None:
    here = world(22, b=1, k=4)
    leaves = [one.detach()[0].clone().requires_grad_() for one in (here.prior_logits, here.posterior_logits)]
    leaves.append(here.log_likelihood()[0].clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda *inputs: enumerated(objective, *inputs), leaves)


@pytest.mark.parametrize(
    "objective",
    [
        *(replace(one, draws=4) for one in SCORE_FUNCTIONS),
        *(replace(one, draws=3) for one in VIMCOS[:4]),
    ],
    ids=repr,
)
def test_its_own_draws_give_the_exact_gradient_on_average(world, mean_equals, objective) -> None:
    here = world(23, b=1, k=4)
    found = here.copies(COPIES).differentiate(objective, seed=3)
    value, prior, posterior, log_l = exact(objective, here)
    mean_equals(found.prior * COPIES, prior)
    mean_equals(found.posterior * COPIES, posterior)
    mean_equals(found.table[:, :, 0] * COPIES, log_l)
    assert found.estimate.loss.item() == pytest.approx(value.item(), rel=0.03)


def test_each_draw_is_compared_with_the_others_as_the_papers_say(world) -> None:
    """Any baseline has the right expectation, so the one that was chosen shows only in a single estimate."""
    here = world(36, b=1, k=5)
    drawn = torch.tensor([0, 3, 3, 1])
    one = torch.nn.functional.one_hot(drawn, 6).double()
    log_p, log_q = (log.detach()[0] for log in (here.scores().log_prior, here.scores().log_posterior))
    among = [pad(log.softmax(dim=-1), (0, 1)) for log in (log_p, log_q)]
    reward = here.log_likelihood()[0, drawn]
    advantage = torch.stack([reward[i] - torch.cat([reward[:i], reward[i + 1 :]]).mean() for i in range(4)])
    rloo = with_draws(here, ScoreFunction(draws=4), drawn.unsqueeze(0))
    torch.testing.assert_close(-rloo.prior[0], (advantage.unsqueeze(-1) * (one - among[0])).mean(dim=0), **TIGHT)

    log_omega = (log_p + here.log_likelihood()[0] - log_q.log_softmax(dim=-1))[drawn]
    without = torch.empty(4, dtype=torch.float64)
    for i in range(4):
        others = torch.cat([log_omega[:i], log_omega[i + 1 :]])
        without[i] = ((others.exp().sum() + others.mean().exp()) / 4).log()
    together, weight = log_omega.exp().mean().log(), log_omega.softmax(dim=-1)
    vimco = with_draws(here, Vimco(draws=4), drawn.unsqueeze(0))
    signal = (together - without - weight).unsqueeze(-1)
    torch.testing.assert_close(-vimco.posterior[0], (signal * (one - among[1])).sum(dim=0), **TIGHT)
    base = here.prior_logits.detach()[0].softmax(dim=-1)
    torch.testing.assert_close(-vimco.prior[0], (weight.unsqueeze(-1) * (one - base)).sum(dim=0), **TIGHT)


def test_draws_from_the_responsibilities_are_all_worth_the_same(world) -> None:
    """ω is then the marginal, whatever is drawn; draws from another law are worth less."""
    here, objective = world(37, b=8), Vimco(draws=16, proposal_share=1.0)
    fitting = replace(here, posterior_logits=here.responsibilities().log().detach().requires_grad_())
    other = replace(here, posterior_logits=(-2 * here.responsibilities().log()).detach().requires_grad_())
    worth = [one.differentiate(objective).estimate.diagnostics["importance_efficiency"] for one in (fitting, other)]
    assert worth[0] == pytest.approx(1.0)
    assert worth[1] < 0.9


def test_a_marginal_rewarded_as_a_probability_has_the_marginals_gradient_times_itself(world) -> None:
    here = world(24, b=1, k=4)
    marginal = here.differentiate(TopKMarginal(normaliser="candidates"))
    value, prior, _, log_l = exact(ScoreFunction("likelihood"), here)
    evidence = (-marginal.estimate.loss).exp().detach()
    torch.testing.assert_close(-value, evidence, **TIGHT)
    torch.testing.assert_close(prior, marginal.prior[0] * evidence, **TIGHT)
    torch.testing.assert_close(log_l, marginal.table[0, :, 0] * evidence, **TIGHT)


def test_a_probability_too_small_for_its_type_teaches_nothing_and_breaks_nothing(world) -> None:
    here = world(25, dtype=torch.float32)
    here.table.data -= 200.0
    found = here.differentiate(ScoreFunction("likelihood"))
    assert found.estimate.loss.item() == 0.0
    assert not found.prior.any()
    assert found.estimate.diagnostics["log_marginal"].item() < -190.0
    assert here.differentiate(ScoreFunction("log_likelihood")).prior.any()


@pytest.mark.parametrize("reward", ["log_likelihood", "elbo"])
def test_the_baseline_removes_the_variance_that_all_draws_share(world, reward: str) -> None:
    """All rewards are near -30: without a baseline each draw is punished as if it alone were to blame."""
    here = world(26, b=1)
    here.table.data -= 10.0
    copies = here.copies(2000)
    plain, rloo = (
        copies.differentiate(ScoreFunction(reward, baseline, draws=4)) for baseline in ("none", "leave_one_out")
    )
    part = "posterior" if reward == "elbo" else "prior"
    before, after = (getattr(one, part).var(dim=0).sum().item() for one in (plain, rloo))
    assert after < before / 20


def test_where_all_passages_are_equally_good_the_baseline_leaves_nothing(world) -> None:
    here = world(27)
    here.table.data[:] = -2.0
    assert here.differentiate(ScoreFunction()).prior.abs().max() < 1e-12
    assert here.differentiate(ScoreFunction(baseline="none")).prior.abs().max() > 0.1


def with_exact_posterior(here):
    here.posterior_logits.data = here.responsibilities().log()
    return here


@pytest.mark.parametrize("objective", [ScoreFunction("elbo", draws=2), Vimco(draws=2)], ids=repr)
def test_from_the_exact_posterior_every_draw_gives_the_log_marginal(world, objective) -> None:
    here = with_exact_posterior(world(28))
    exactly = here.differentiate(TopKMarginal()).estimate.loss
    found = here.differentiate(objective)
    torch.testing.assert_close(found.estimate.loss, exactly, **TIGHT)
    torch.testing.assert_close(found.estimate.diagnostics["log_marginal"], -exactly.detach(), **TIGHT)


def test_more_draws_tighten_the_bound(world) -> None:
    here = world(29, b=1, k=4, scale=1.5)
    log_z = -here.differentiate(TopKMarginal()).estimate.loss.item()
    bounds = [-exact(Vimco(draws=n), here)[0].item() for n in (2, 3, 4, 6)]
    assert sorted(bounds) == bounds
    assert bounds[-1] < log_z
    log_p, log_q = here.scores().log_prior.detach()[0], here.scores().log_posterior.detach()[0]
    q = log_q.softmax(dim=-1)
    omega = (log_p + here.log_likelihood()[0] - q.log()).exp()
    spread = (q * (omega / math.exp(log_z) - 1).square()).sum().item()
    many = -here.copies(COPIES).differentiate(Vimco(draws=16)).estimate.loss.item()
    predicted, error = spread / (2 * 16), math.sqrt(spread / (16 * COPIES))  # Var(ω) / (2n E[ω]²)
    assert log_z - many == pytest.approx(predicted, abs=5 * error)
    assert predicted > 2 * error  # the gap is one that the test can see


@pytest.mark.parametrize("objective", [*SCORE_FUNCTIONS[::2], Vimco(), Vimco(proposal="prior")], ids=repr)
def test_each_distinct_draw_is_scored_once_with_gradient(world, objective) -> None:
    here = world(30, b=40)
    found = here.differentiate(replace(objective, draws=5))
    assert found.likelihood.without_gradient == 0
    assert found.likelihood.with_gradient < 5 * 40  # of 200 draws from six columns some coincide
    assert found.likelihood.with_gradient == round(found.estimate.diagnostics["generator_forwards"].item() * 40)
    trained = (found.table != 0).any(dim=-1).sum().item()
    assert trained == found.likelihood.with_gradient


@pytest.mark.parametrize("objective", [*SCORE_FUNCTIONS, *VIMCOS], ids=repr)
def test_the_value_has_the_gradient_that_the_generator_gets(world, objective) -> None:
    """At fixed draws the loss depends on the table directly, and on nothing that its gradient leaves out."""
    here = world(31, b=2, k=3, t=2)

    def loss(table: Tensor) -> Tensor:
        likelihood = replace(here.likelihood(), table=table)
        return objective(here.scores(), likelihood, torch.Generator().manual_seed(0)).loss

    assert torch.autograd.gradcheck(loss, [here.table])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("objective", [ScoreFunction(), ScoreFunction("likelihood"), ScoreFunction("elbo"), *VIMCOS])
def test_scores_at_a_temperature_of_0_005_have_finite_gradients(world, objective, dtype: torch.dtype) -> None:
    here = world(32, b=8, k=5, dtype=dtype)
    here.prior_logits.data /= 0.005
    here.posterior_logits.data /= 0.005
    found = here.differentiate(objective)
    assert found.estimate.loss.isfinite()
    assert all(leaf.isfinite().all() for leaf in found.leaves)


@pytest.mark.parametrize("impossible", [slice(1, None), slice(0, None)])
@pytest.mark.parametrize("objective", [*SCORE_FUNCTIONS, *VIMCOS], ids=repr)
def test_passages_under_which_the_target_is_impossible_break_nothing(world, objective, impossible: slice) -> None:
    here = world(33, b=30, k=3)
    here.table.data[:, impossible] = -math.inf
    found = here.differentiate(objective)
    assert found.estimate.loss.isfinite()
    assert found.prior.isfinite().all()
    assert found.posterior.isfinite().all()


def test_the_posterior_is_asked_for_only_where_draws_come_from_it(world) -> None:
    here = world(34)
    bare = replace(here.scores(), log_posterior=None)
    for objective in (ScoreFunction(), ScoreFunction("likelihood"), Vimco(proposal="prior")):
        assert not objective.needs_posterior
        assert objective(bare, here.likelihood(), torch.Generator()).loss.isfinite()
    for objective in (ScoreFunction("elbo"), Vimco()):
        assert objective.needs_posterior
        with pytest.raises(ValueError, match=r"needs log_posterior.*retriever.posterior = true"):
            objective(bare, here.likelihood(), torch.Generator())


def test_one_draw_is_enough_without_a_baseline(world) -> None:
    found = world(35).differentiate(ScoreFunction(baseline="none", draws=1))
    assert found.prior.any()
    assert found.estimate.diagnostics["effective_sample_size"].item() == 1.0


@pytest.mark.parametrize(
    ("kind", "setting", "advice"),
    [
        (ScoreFunction, {"draws": 1}, "draws is 1; .*at least 2 are needed; raise draws, or set baseline = 'none'"),
        (ScoreFunction, {"draws": 0, "baseline": "none"}, "draws is 0; it must be a whole number of at least 1"),
        (ScoreFunction, {"reward": "f1"}, "reward is 'f1'; it must be 'log_likelihood' or 'likelihood' or 'elbo'"),
        (ScoreFunction, {"baseline": "mean"}, "baseline is 'mean'; it must be 'none' or 'leave_one_out'"),
        (Vimco, {"draws": 1}, "Vimco: draws is 1; .*at least 2 are needed"),
        (Vimco, {"proposal": "q"}, "proposal is 'q'; it must be 'posterior' or 'prior'"),
        (Vimco, {"proposal_share": 0.0}, "proposal_share is 0.0; it must be above 0"),
        (Vimco, {"normaliser": "k"}, "normaliser is 'k'; it must be 'full' or 'candidates'"),
    ],
)
def test_a_setting_that_cannot_be_says_what_can(kind, setting: dict[str, object], advice: str) -> None:
    """Set behind the type checker of the tests, which would refuse some of these first; users have none in front."""
    objective = kind()
    for name, value in setting.items():
        object.__setattr__(objective, name, value)
    with pytest.raises(UserError, match=advice):
        objective.__post_init__()
