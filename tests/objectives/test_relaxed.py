"""Relaxed selection against slow twins written out row by row; StochasticTopK against enumeration and chain rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.objectives.conftest import TableLikelihood
from torch import Tensor

from retrograd.objectives import StochasticTopK
from retrograd.objectives.relaxed import gumbel, hard_top_k, softsort_rows, straight_through, successive_softmax
from retrograd.types import UserError

COPIES = 20_000
TIGHT = {"rtol": 1e-9, "atol": 1e-9}
worlds = settings(max_examples=25, derandomize=True)
RELAXATIONS = {"successive_softmax": successive_softmax, "softsort": softsort_rows}
relaxations = pytest.mark.parametrize("relaxation", RELAXATIONS.values(), ids=RELAXATIONS.keys())


class SlotTable(TableLikelihood):
    """The table with a derivative at weights of 0 as well, as a generator has; remembers what it answered."""

    answered: Tensor

    def at_mixture(self, weight: Tensor) -> Tensor:
        self._count(len(weight), "slots")
        said = self._tokens(torch.arange(weight.shape[2]).expand(len(weight), -1)).sum(dim=-1)
        slot = 0.5 ** torch.arange(1, weight.shape[1] + 1)
        self.answered = self.closed_book + ((weight * said.unsqueeze(1)).sum(dim=-1) * slot).sum(dim=-1)
        return self.answered


def slot_table(here) -> SlotTable:
    return SlotTable(here.table, here.closed_book, here.present)


def slow_rows(score: Tensor, slots: int, temperature: float, relaxation: str) -> Tensor:
    """One query, all candidates present: each softmax, and each 1 - w as the sum of the others, written out."""
    count, rows = len(score), []
    best, left = score.sort(descending=True).values, list(score)
    for r in range(slots):
        if r >= count:
            rows.append(torch.zeros_like(score))
        elif relaxation == "softsort":
            rows.append((-(best[r] - score).abs() / temperature).softmax(dim=0))
        else:
            scaled = torch.stack(left) / temperature
            rows.append(scaled.softmax(dim=0))
            if count > 1:
                unused = [torch.cat([scaled[:k], scaled[k + 1 :]]).logsumexp(0) for k in range(count)]
                left = [a + one - scaled.logsumexp(0) for a, one in zip(left, unused, strict=True)]
    return torch.stack(rows)


def scores(seed: int, *shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


# Weights


@worlds
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 6),
    slots=st.integers(1, 4),
    temperature=st.sampled_from([0.05, 0.5, 1.0, 3.0]),
    relaxation=st.sampled_from(sorted(RELAXATIONS)),
)
def test_rows_and_their_gradients_are_the_slow_twins(
    seed: int, k: int, slots: int, temperature: float, relaxation: str
) -> None:
    score = scores(seed, 3, k).requires_grad_()
    upstream = scores(seed + 1, 3, slots, k)
    found = RELAXATIONS[relaxation](score, slots, temperature)
    expected = torch.stack([slow_rows(row, slots, temperature, relaxation) for row in score])
    torch.testing.assert_close(found, expected, **TIGHT)
    ours, theirs = (torch.autograd.grad((rows * upstream).sum(), score)[0] for rows in (found, expected))
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-8)
    filled = torch.arange(slots) < k
    torch.testing.assert_close(found.sum(dim=-1), filled.double().expand(3, slots))


@relaxations
def test_gradcheck(relaxation) -> None:
    score = scores(0, 2, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda value: relaxation(value, 3, 0.5), score)


@relaxations
def test_rows_harden_to_the_true_top_k_as_the_temperature_falls(relaxation) -> None:
    score = (torch.arange(12, dtype=torch.float64) * 0.1)[
        torch.randperm(12, generator=torch.Generator().manual_seed(3))
    ]
    score = score.unsqueeze(0)
    hard = hard_top_k(score, 4)
    assert hard[0].nonzero()[:, 1].tolist() == score[0].argsort(descending=True)[:4].tolist()
    summed = hard.sum(dim=1)
    away = [
        (relaxation(score, 4, t).sum(dim=1) - summed).abs().sum().item()
        for t in (1.0, 0.3, 0.1, 0.05, 0.02, 0.01, 5e-3)
    ]
    assert all(later < earlier for earlier, later in itertools.pairwise(away))
    assert away[-1] < 1e-3
    torch.testing.assert_close(relaxation(score, 4, 5e-3), hard, rtol=0, atol=1e-3)  # each row, not their sum alone


def test_softsort_comes_nearer_to_the_hard_set_than_n3() -> None:
    """Ten of 100 at T = 0.03, scores like cosines of a trained retriever (standard deviation 0.2)."""
    score = 0.2 * scores(4, 200, 100)
    hard = hard_top_k(score, 10).sum(dim=1)
    n3, softsort = ((one(score, 10, 0.03).sum(dim=1) - hard).abs().sum(-1).mean() for one in RELAXATIONS.values())
    assert softsort < 0.6 * n3


def test_the_log_term_is_not_rescaled_by_the_temperature() -> None:
    """Two leaders far above the rest at T = 0.1: the second slot is the second one's; dividing once makes it a tie."""
    score = torch.tensor([[1.0, 0.0, -2.0, -2.0]], dtype=torch.float64)
    assert successive_softmax(score, 2, 0.1)[0, 1, 1] > 0.99
    divided_once = successive_softmax(score / 0.1, 2, 1.0)[0, 1]
    assert divided_once[:2].tolist() == pytest.approx([0.5, 0.5], abs=1e-4)


def test_a_weight_that_rounds_to_one_keeps_the_gradient_of_the_next_slot() -> None:
    """1 - 2e-9 is 1 in fp32, and the second slot lives from that difference."""
    wide = torch.tensor([[20.0, 0.0, -1.0]], dtype=torch.float64, requires_grad=True)
    narrow = wide.detach().float().requires_grad_()
    upstream = torch.tensor([1.0, -2.0, 0.5])
    for score in (wide, narrow):
        (successive_softmax(score, 2, 1.0)[0, 1] * upstream.to(score.dtype)).sum().backward()
    assert successive_softmax(narrow, 2, 1.0)[0, 0, 0] == 1.0
    assert wide.grad is not None
    assert narrow.grad is not None
    assert wide.grad.abs().max() > 0.1
    torch.testing.assert_close(narrow.grad.double(), wide.grad, rtol=1e-5, atol=1e-6)


@relaxations
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.02, 1.0, 200.0])
def test_everything_stays_finite_at_a_temperature_of_a_200th(relaxation, dtype: torch.dtype, scale: float) -> None:
    score = (scale * scores(5, 64, 8)).to(dtype)
    score[:16, 3:] = -math.inf
    score[16:20] = score[16:20, :1]  # all equal
    score[20] = -math.inf
    score.requires_grad_()
    found = relaxation(score, 5, 0.005)
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert (found >= 0).all()
    filled = (score > -math.inf).sum(dim=-1, keepdim=True) > torch.arange(5)
    torch.testing.assert_close(found.sum(dim=-1), filled.float())
    (found * scores(6, 64, 5, 8).float()).sum().backward()
    assert score.grad is not None
    assert score.grad.isfinite().all()
    assert not score.grad[score == -math.inf].any()


def test_equal_scores_never_separate() -> None:
    for relaxation in RELAXATIONS.values():
        found = relaxation(torch.zeros(1, 4), 2, 0.01)
        torch.testing.assert_close(found, torch.full((1, 2, 4), 0.25))


@relaxations
def test_candidates_may_come_in_any_order(relaxation) -> None:
    score, order = scores(7, 2, 6), torch.tensor([3, 0, 5, 1, 4, 2])
    torch.testing.assert_close(relaxation(score[:, order], 3, 0.7), relaxation(score, 3, 0.7)[..., order], **TIGHT)
    assert torch.equal(hard_top_k(score[:, order], 3), hard_top_k(score, 3)[..., order])


@relaxations
@pytest.mark.parametrize("present", [4, 2, 1, 0])
def test_padding_is_absence(relaxation, present: int) -> None:
    few = scores(8, 2, present).requires_grad_()
    holes = torch.tensor([0, 2, 3, 5])[:present]
    padded = torch.full((2, 7), -math.inf, dtype=torch.float64).index_copy(1, holes, few)
    found, alone = relaxation(padded, 3, 0.5), relaxation(few, 3, 0.5)
    torch.testing.assert_close(found[..., holes], alone, **TIGHT)
    torch.testing.assert_close(found.sum(dim=-1), alone.sum(dim=-1), **TIGHT)
    assert not found[:, present:].any()  # fewer candidates than slots
    assert torch.equal(hard_top_k(padded, 3)[..., holes], hard_top_k(few, 3))
    upstream = scores(9, 2, 3, 7)
    ours = torch.autograd.grad((found * upstream).sum(), few)[0]
    theirs = torch.autograd.grad((alone * upstream[..., holes]).sum(), few)[0]
    torch.testing.assert_close(ours, theirs, **TIGHT)


def test_straight_through_has_exactly_the_hard_value_and_the_soft_gradient() -> None:
    score = scores(10, 50, 6, dtype=torch.float32).requires_grad_()
    soft, upstream = successive_softmax(score, 3, 1.0), scores(11, 50, 3, 6).float()
    weight = straight_through(hard_top_k(score, 3), soft)
    assert torch.equal(weight, hard_top_k(score, 3))
    ours, theirs = (torch.autograd.grad((one * upstream).sum(), score, retain_graph=True)[0] for one in (weight, soft))
    assert torch.equal(ours, theirs)


# Noise


def test_gumbel_noise_has_the_gumbel_law_and_one_seed_is_one_noise(mean_equals, monkeypatch) -> None:
    def drawn(dtype: torch.dtype) -> Tensor:
        return gumbel((COPIES, 1), torch.Generator().manual_seed(12), torch.empty(0, dtype=dtype))

    noise = drawn(torch.float64)
    mean_equals(noise, torch.tensor([0.57721566], dtype=torch.float64))  # Euler's constant
    mean_equals((-noise).exp(), torch.ones(1, dtype=torch.float64))  # exp(-g) is a standard exponential
    assert torch.equal(drawn(torch.float32), noise.float())
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape, dtype=torch.float64))
    assert drawn(torch.float32).isfinite().all()


def test_gumbel_top_k_samples_without_replacement(mean_equals) -> None:
    """Plackett-Luce: the first is drawn from p, the second from what is left of p."""
    p = scores(13, 5).softmax(dim=-1)
    noise = gumbel((COPIES, 5), torch.Generator().manual_seed(14), p)
    rows = hard_top_k(p.log() + noise, 2)
    mean_equals(rows[:, 0], p)
    pairs = rows[:, 0, :, None] * rows[:, 1, None, :]
    expected = p[:, None] * p[None, :] / (1 - p[:, None])
    mean_equals(pairs, expected.fill_diagonal_(0.0))


# The objective


def plackett_luce(p: Tensor, slots: int) -> dict[tuple[int, ...], float]:
    """The probability of every ordered choice of ``slots`` candidates."""
    law = {}
    for order in itertools.permutations(range(len(p)), slots):
        left, probability = 1.0, 1.0
        for k in order:
            probability *= p[k].item() / left
            left -= p[k].item()
        law[order] = probability
    return law


@pytest.mark.parametrize(("slots", "noise"), [(1, 1.0), (2, 1.0), (3, 1.0), (2, 2.0)])
def test_the_value_is_unbiased_for_the_expectation_over_ordered_choices(
    world, mean_equals, slots: int, noise: float
) -> None:
    here = world(15, b=1, n=6, k=4)
    law = plackett_luce((here.scores().log_prior[0].detach() / noise).softmax(dim=-1), slots)
    assert sum(law.values()) == pytest.approx(1.0)
    said, closed = here.log_likelihood()[0], here.closed_book[0].item()
    expected = sum(
        probability * (closed + sum(said[k].item() / 2 ** (r + 1) for r, k in enumerate(order)))
        for order, probability in law.items()
    )
    copies = here.copies(COPIES)
    likelihood = slot_table(copies)
    objective = StochasticTopK(slots=slots, noise=noise)
    estimate = objective(copies.scores(), likelihood, torch.Generator().manual_seed(16))
    mean_equals(likelihood.answered.detach().unsqueeze(-1), torch.tensor([expected], dtype=torch.float64))
    torch.testing.assert_close(estimate.loss, -likelihood.answered.mean())
    # In the table the generator's gradient is each candidate's share of the slots: unbiased too.
    share = torch.zeros(4, dtype=torch.float64)
    for order, probability in law.items():
        for r, k in enumerate(order):
            share[k] += probability / 2 ** (r + 1)
    table = torch.autograd.grad(estimate.loss, copies.table)[0]
    mean_equals(-table[:, :, 0] * COPIES, share)


@worlds
@given(
    seed=st.integers(0, 10**6),
    k=st.integers(1, 6),
    slots=st.integers(1, 3),
    temperature=st.sampled_from([0.3, 1.0, 2.0]),
    relaxation=st.sampled_from(sorted(RELAXATIONS)),
    draws=st.integers(1, 2),
)
def test_the_gradient_is_the_chain_rule_written_out(world, seed, k, slots, temperature, relaxation, draws) -> None:
    here = world(seed, b=2, n=6, k=k)
    objective = StochasticTopK(slots=slots, temperature=temperature, relaxation=relaxation, draws=draws)
    loss = objective(here.scores(), slot_table(here), torch.Generator().manual_seed(17)).loss
    leaves = (here.prior_logits, here.table, here.closed_book)
    prior, table, closed = torch.autograd.grad(loss, leaves)
    noise = gumbel((2, draws, k), torch.Generator().manual_seed(17), here.table)
    said, halves = here.log_likelihood(), 0.5 ** torch.arange(1, slots + 1)
    value, through, expected_table = 0.0, 0.0, torch.zeros_like(here.table)
    for m, b in itertools.product(range(draws), range(2)):
        score = here.scores().log_prior[b] + noise[b, m]
        # d loss / d weight[r, k] = -said[k] / 2^(r+1), times d soft / d logits.
        soft = slow_rows(score, slots, temperature, relaxation)
        through = through - (soft * said[b] * halves.unsqueeze(-1)).sum() / (2 * draws)
        value -= here.closed_book[b].item() / (2 * draws)
        for r, chosen in enumerate(score.argsort(descending=True)[:slots].tolist()):
            value -= said[b, chosen].item() * halves[r].item() / (2 * draws)
            expected_table[b, chosen] -= here.present[b] * halves[r] / (2 * draws)
    assert loss.item() == pytest.approx(value, rel=1e-9)
    torch.testing.assert_close(prior, torch.autograd.grad(through, here.prior_logits)[0], **TIGHT)
    torch.testing.assert_close(table, expected_table, **TIGHT)
    torch.testing.assert_close(closed, torch.full((2,), -0.5, dtype=torch.float64), **TIGHT)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 3.0])
def test_the_bias_of_one_slot_is_the_predicted_one(world, mean_equals, temperature: float) -> None:
    """Two candidates: the soft weight is σ((Δ + ℓ)/T) with ℓ logistic, so its mean derivative is an integral over ℓ."""
    here = world(18, b=1, n=2, k=2)
    delta = (here.prior_logits[0, 0] - here.prior_logits[0, 1]).item()
    noise = torch.linspace(-60, 60, 240_001, dtype=torch.float64)
    density = torch.sigmoid(noise) * torch.sigmoid(-noise)

    def mean_slope(t: float) -> float:
        soft = torch.sigmoid((delta + noise) / t)
        return torch.trapezoid(density * soft * (1 - soft) / t, noise).item()

    first, second = here.log_likelihood()[0].tolist()
    expected = -0.5 * (first - second) * mean_slope(temperature)
    copies = here.copies(COPIES)
    objective = StochasticTopK(slots=1, temperature=temperature)
    loss = objective(copies.scores(), slot_table(copies), torch.Generator().manual_seed(19)).loss
    found = torch.autograd.grad(loss, copies.prior_logits)[0] * COPIES
    mean_equals(found, torch.tensor([expected, -expected], dtype=torch.float64))
    p = here.prior_logits[0].detach().softmax(dim=-1)
    exact_slope = (p[0] * p[1]).item()
    assert abs(mean_slope(temperature) - exact_slope) > 0.003  # it is biased,
    assert mean_slope(0.01) == pytest.approx(exact_slope, abs=1e-4)  # and a low temperature removes that


def test_without_noise_it_is_the_top_k_and_leaves_the_rng_alone(world) -> None:
    here = world(20, b=3)
    rng = torch.Generator().manual_seed(21)
    before = rng.get_state()
    likelihood = slot_table(here)
    StochasticTopK(noise=0.0)(here.scores(), likelihood, rng)
    assert torch.equal(rng.get_state(), before)
    best = here.prior_logits.argsort(dim=-1, descending=True)[:, :2]
    said = here.log_likelihood().gather(1, best)
    torch.testing.assert_close(likelihood.answered, here.closed_book + said[:, 0] / 2 + said[:, 1] / 4)


def test_empty_slots_hold_nothing_and_an_empty_query_is_answered_without_passages(world) -> None:
    here = world(22, b=3, k=4)
    here.absent[0, 1:] = True
    here.absent[1] = True
    likelihood = slot_table(here)
    estimate = StochasticTopK(slots=3)(here.scores(), likelihood, torch.Generator().manual_seed(23))
    said = here.log_likelihood()
    torch.testing.assert_close(likelihood.answered[0], here.closed_book[0] + said[0, 0] / 2)
    torch.testing.assert_close(likelihood.answered[1], here.closed_book[1])
    assert estimate.diagnostics["empty_share"].item() == pytest.approx(1 / 3)


def test_the_effective_sample_size_tells_a_flat_relaxation_from_a_hard_one(world) -> None:
    here = world(24, b=50)
    sizes = [
        here.differentiate(StochasticTopK(temperature=t)).estimate.diagnostics["effective_sample_size"].item()
        for t in (0.01, 1.0, 100.0)
    ]
    assert sizes[0] == pytest.approx(1.0, abs=0.05)
    assert 1.5 < sizes[1] < 4.5
    assert sizes[2] == pytest.approx(6.0, abs=0.05)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_finite_with_scores_of_a_retriever_at_a_temperature_of_a_200th(
    world, relaxation, dtype
) -> None:
    here = world(25, b=16, scale=200.0, dtype=dtype)
    here.table.data /= 200.0
    for temperature in (1.0, 0.005):
        found = here.differentiate(StochasticTopK(slots=4, temperature=temperature, relaxation=relaxation))
        assert found.estimate.loss.isfinite()
        assert all(leaf.isfinite().all() for leaf in found.leaves)


@pytest.mark.parametrize(
    ("setting", "value", "advice"),
    [
        ("slots", 0, "slots is 0; it must be a whole number of at least 1"),
        ("draws", 0, "draws is 0"),
        ("temperature", 0.0, "temperature is 0.0; it must be above 0 and finite"),
        ("temperature", math.nan, "temperature is nan"),
        ("noise", -1.0, "noise is -1.0; it must be at least 0 and finite"),
        ("noise", math.inf, "noise is inf"),
        ("relaxation", "sinkhorn", "relaxation is 'sinkhorn'; it must be 'successive_softmax' or 'softsort'"),
    ],
)
def test_impossible_settings_are_refused(setting: str, value: float | str, advice: str) -> None:
    """Set behind the type checker of the tests, as in test_checks.py."""
    objective = StochasticTopK()
    object.__setattr__(objective, setting, value)
    with pytest.raises(UserError, match=advice):
        objective.__post_init__()


def test_draws_that_would_all_be_the_same_are_refused() -> None:
    with pytest.raises(UserError, match="without noise all 2 draws are the same; set draws = 1"):
        StochasticTopK(noise=0.0, draws=2)


@pytest.mark.parametrize("relaxation", ["successive_softmax", "softsort"])
@pytest.mark.parametrize("slots", [1, 2, 7])
def test_the_trained_model_answers_from_the_slots_of_training_without_noise(world, slots: int, relaxation: str) -> None:
    """Nothing is drawn: the R best, one a slot, with exactly the likelihood that training without noise sees."""
    here = world(41, b=3, k=5)
    objective = StochasticTopK(slots=slots, noise=0.0, relaxation=relaxation)
    weight = objective.selection(here.scores())
    assert torch.equal(weight.detach(), hard_top_k(here.scores().log_prior, slots))
    expected = here.likelihood().at_mixture(weight).mean()
    torch.testing.assert_close(-here.differentiate(objective).estimate.loss, expected.detach(), **TIGHT)
    assert StochasticTopK(slots=slots, relaxation=relaxation).selection == objective.selection
