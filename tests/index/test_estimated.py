"""The estimated log Z: by enumeration of all draws, then by replicates, then against the exact index."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from statistics import NormalDist

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index import estimated
from retrograd.index.estimated import LogNormaliserEstimate, combine_draws, draw_outside, estimate_log_normaliser
from retrograd.index.exact import ExactIndex
from retrograd.index.settings import NormaliserEstimation
from retrograd.types import UserError

FALSE_ALARM = 1e-6  # allowed chance that a correct estimator fails a statistical test
REPLICATES = 20_000
NAMES = {"base_fingerprint": "base", "encoder_fingerprint": "encoder"}
ROWS, WIDTH = 9, 3
KNOWN, EXCLUDED = [6, 2, -1, 2], [4, -1, 6]  # row 2 twice; row 6 known and excluded
OTHERS = [0, 1, 3, 5, 7, 8]
TIGHT = {"rtol": 1e-9, "atol": 1e-9}


def world() -> tuple[ExactIndex, Float[Tensor, "1 D"]]:
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(ROWS, WIDTH, generator=rng, dtype=torch.float64)
    index = ExactIndex(vectors, **NAMES, dtype=torch.float64)
    return index, torch.randn(1, WIDTH, generator=rng, dtype=torch.float64)


def estimate(index: ExactIndex, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator) -> LogNormaliserEstimate:
    known, excluded = (torch.tensor(rows).expand(len(query), -1) for rows in (KNOWN, EXCLUDED))
    return estimate_log_normaliser(index, query, known, draws, rng, excluded)


def exact(index: ExactIndex, query: Float[Tensor, "1 D"]) -> tuple[Float[Tensor, ""], Float[Tensor, " D"]]:
    """Return Z of one query and its gradient."""
    leaf = query.clone().requires_grad_()
    log_z = index.log_normaliser(leaf, torch.tensor([EXCLUDED]))
    (gradient,) = torch.autograd.grad(log_z.exp().sum(), leaf)
    return log_z.detach().exp()[0], gradient[0]


# ---- enumeration -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [2, 3, 5])
def test_z_and_its_gradient_are_unbiased_over_all_draws_and_so_is_their_variance(draws: int) -> None:
    index, query = world()
    z, gradient = exact(index, query)
    sequences = torch.tensor(list(itertools.product(OTHERS, repeat=draws)))
    logit = index.vectors(torch.arange(ROWS)) @ query[0]
    known = logit[[2]].expand(len(sequences), -1)
    log_z, share, error = combine_draws(known, logit[sequences], torch.full((len(sequences),), len(OTHERS)))
    rows = torch.cat([torch.full((len(sequences), 1), 2), sequences], dim=-1)
    mean = (share.unsqueeze(-1) * index.vectors(rows)).sum(dim=1)
    torch.testing.assert_close(log_z.exp().mean(), z, **TIGHT)
    torch.testing.assert_close((log_z.exp().unsqueeze(-1) * mean).mean(dim=0), gradient, **TIGHT)
    variance = len(OTHERS) ** 2 / draws * logit[OTHERS].exp().var(correction=0)
    torch.testing.assert_close((log_z.exp() - z).square().mean(), variance, **TIGHT)
    torch.testing.assert_close((error * log_z.exp()).square().mean(), variance, **TIGHT)
    torch.testing.assert_close(share.sum(dim=-1), torch.ones(len(sequences), dtype=torch.float64), **TIGHT)


HEAVY, LIGHT, HEAVY_SHARE, MANY, KNOWN_LOGIT = 1.5, 0.0, 0.25, 1000, 7.0
"""Logits of a base with one known row and 1,000 others, of which a quarter are heavy."""


@dataclass(frozen=True)
class EveryDraw:
    """What m draws of that base can give, by the number of heavy rows among them; sums over it are expectations."""

    probability: Float[Tensor, " J"]
    log_z: Float[Tensor, " J"]
    gradient: Float[Tensor, "J 2"]
    estimate: LogNormaliserEstimate

    @staticmethod
    def of(draws: int) -> EveryDraw:
        heavy = torch.arange(draws + 1, dtype=torch.float64)
        ways = torch.tensor([math.comb(draws, j) for j in range(draws + 1)], dtype=torch.float64)
        is_heavy = torch.arange(draws) < heavy.unsqueeze(-1)
        logit = torch.where(is_heavy, HEAVY, LIGHT).double()
        known = torch.full((draws + 1, 1), KNOWN_LOGIT, dtype=torch.float64)
        log_z, share, error = combine_draws(known, logit, torch.full((draws + 1,), MANY))
        return EveryDraw(
            ways * HEAVY_SHARE**heavy * (1 - HEAVY_SHARE) ** (draws - heavy),
            log_z,
            torch.stack([(share[:, 1:] * is_heavy).sum(-1), (share[:, 1:] * ~is_heavy).sum(-1)], dim=-1),
            LogNormaliserEstimate(log_z, error),
        )


def law(draws: int) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, " 2"], Float[Tensor, " 2"]]:
    """Return log Z, the bias -Var/(2Z²) that the delta method predicts, and the gradients of both in the two logits."""
    logits = torch.tensor([HEAVY, LIGHT], dtype=torch.float64, requires_grad=True)
    heavy, light = logits.exp()
    z = math.exp(KNOWN_LOGIT) + MANY * (HEAVY_SHARE * heavy + (1 - HEAVY_SHARE) * light)
    variance = MANY**2 / draws * HEAVY_SHARE * (1 - HEAVY_SHARE) * (heavy - light).square()
    bias = -variance / (2 * z.square())
    (slope,) = torch.autograd.grad(z.log(), logits, retain_graph=True)
    (slope_of_bias,) = torch.autograd.grad(bias, logits)
    return z.log().detach(), bias.detach(), slope, slope_of_bias


def test_the_bias_of_the_log_and_of_its_gradient_follows_the_delta_method() -> None:
    """The bias is of order 1/m; what the law leaves of it is of order 1/m² or less: four times the draws leave a
    sixteenth, but for terms of order 1/m³.
    """
    left: list[Float[Tensor, " 3"]] = []
    for draws in (16, 64, 256):
        every = EveryDraw.of(draws)
        log_z, bias, slope, slope_of_bias = law(draws)
        value = (every.probability * every.log_z).sum() - log_z
        gradient = every.probability @ every.gradient - slope
        stated = (every.probability * every.estimate.bias).sum()
        assert float(value) < 0
        assert float((value / bias - 1).abs()) < 2 / draws
        assert float((gradient - slope_of_bias).norm() / slope_of_bias.norm()) < 2 / draws
        left.append(torch.stack([(value - bias).abs(), (gradient - slope_of_bias).norm(), (stated - bias).abs()]))
    for few, many in itertools.pairwise(left):
        assert bool((few > 12 * many).all()), few / many


def test_the_variance_shrinks_with_the_number_of_draws() -> None:
    for draws in (4, 16, 64):
        every = EveryDraw.of(draws)
        log_z, bias, _, _ = law(draws)
        variance = -2 * bias * log_z.exp().square()
        z = every.log_z.exp()
        torch.testing.assert_close((every.probability * (z - log_z.exp()).square()).sum(), variance, **TIGHT)
        error = every.estimate.standard_error * z
        torch.testing.assert_close((every.probability * error.square()).sum(), variance, **TIGHT)


# ---- replicates ------------------------------------------------------------------------------------------------------


def test_z_and_its_gradient_are_unbiased_over_replicates(rng: torch.Generator) -> None:
    """One call with 20,000 copies of a query: no mean is further from the truth than chance allows."""
    index, query = world()
    z, gradient = exact(index, query)
    copies = query.repeat(REPLICATES, 1).requires_grad_()
    found = estimate(index, copies, 3, rng)
    (slope,) = torch.autograd.grad(found.value.sum(), copies)
    weight = found.value.detach().exp()
    samples = torch.cat([weight.unsqueeze(-1), weight.unsqueeze(-1) * slope], dim=-1)
    expected = torch.cat([z.unsqueeze(0), gradient])
    scores = (samples.mean(dim=0) - expected) / (samples.std(dim=0) / REPLICATES**0.5)
    allowed = NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(expected))
    assert float(scores.abs().max()) < allowed
    logit = index.vectors(torch.tensor(OTHERS)) @ query[0]
    variance = len(OTHERS) ** 2 / 3 * logit.exp().var(correction=0)
    kurtosis = ((weight - z) / variance.sqrt()).pow(4).mean()
    assert abs(weight.var() / variance - 1) < allowed * ((kurtosis - 1) / REPLICATES).sqrt()


def test_rows_are_drawn_evenly_from_those_that_are_not_known(rng: torch.Generator) -> None:
    known = torch.tensor([[*KNOWN, *EXCLUDED]]).expand(REPLICATES, -1)
    row, others = draw_outside(known, ROWS, 2, rng)
    assert others.tolist() == [len(OTHERS)] * REPLICATES
    count = torch.bincount(row.flatten(), minlength=ROWS).double()
    assert count[[2, 4, 6]].tolist() == [0, 0, 0]
    share = 1 / len(OTHERS)
    z = (count[OTHERS] - row.numel() * share) / math.sqrt(row.numel() * share * (1 - share))
    assert float(z.abs().max()) < NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(OTHERS))


# ---- against the exact index -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("draws", [len(OTHERS), 20])
def test_with_as_many_draws_as_rows_nothing_is_estimated(draws: int, rng: torch.Generator) -> None:
    index, query = world()
    z, gradient = exact(index, query)
    leaf = query.clone().requires_grad_()
    found = estimate(index, leaf, draws, rng)
    (slope,) = torch.autograd.grad(found.value.sum(), leaf)
    torch.testing.assert_close(found.value.exp(), z.unsqueeze(0), **TIGHT)
    torch.testing.assert_close(slope[0] * z, gradient, **TIGHT)
    assert found.standard_error.tolist() == [0.0]


def test_unknown_rows_are_listed_once_where_they_are_few(rng: torch.Generator) -> None:
    known = torch.tensor([[5, 0, 3, 3, -1], [-1, -1, -1, -1, -1], [0, 1, 2, 3, 4], [7, 6, 5, 4, 3]])
    row, others = draw_outside(known, 8, 8, rng)
    assert row.tolist() == [
        [1, 2, 4, 6, 7, -1, -1, -1],
        [0, 1, 2, 3, 4, 5, 6, 7],
        [5, 6, 7, -1, -1, -1, -1, -1],
        [0, 1, 2, -1, -1, -1, -1, -1],
    ]
    assert others.tolist() == [5, 8, 3, 3]


def test_a_query_without_any_row_has_no_mass_and_no_gradient(rng: torch.Generator) -> None:
    index, query = world()
    leaf = query.clone().requires_grad_()
    found = estimate_log_normaliser(index, leaf, torch.tensor([[1]]), 2, rng, torch.arange(ROWS).unsqueeze(0))
    found.value.exp().sum().backward()
    assert found.value.tolist() == [-math.inf]
    assert found.standard_error.tolist() == [0.0]
    assert leaf.grad is not None
    assert not leaf.grad.any()


def test_large_logits_neither_overflow_nor_vanish(rng: torch.Generator) -> None:
    index, query = world()
    index = ExactIndex(index.vectors(torch.arange(ROWS)).float(), **NAMES)
    found = estimate(index, 1e4 * query.float(), 3, rng)
    assert found.value.isfinite().all()
    assert found.standard_error.isfinite().all()


def test_queries_are_split_without_a_change_and_a_seed_repeats(monkeypatch: pytest.MonkeyPatch) -> None:
    index, query = world()
    queries = query + torch.arange(5.0, dtype=torch.float64).unsqueeze(-1)
    found = [estimate(index, queries, 3, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert torch.equal(found[0].value, found[1].value)
    assert not torch.equal(found[0].value, found[2].value)
    monkeypatch.setattr(estimated, "_CELLS", 2 * WIDTH * (len(KNOWN) + 3))  # two queries at a time
    blocks = estimate(index, queries, 3, torch.Generator().manual_seed(1))
    torch.testing.assert_close(blocks.value, found[0].value, **TIGHT)
    torch.testing.assert_close(blocks.standard_error, found[0].standard_error, **TIGHT)


def test_settings_and_arguments_that_leave_no_error_are_refused(rng: torch.Generator) -> None:
    index, query = world()
    with pytest.raises(ValueError, match="draws is 1; expected at least 2"):
        estimate(index, query, 1, rng)
    with pytest.raises(UserError, match="normaliser_draws is 1; expected 0"):
        NormaliserEstimation(draws=1)
    with pytest.raises(UserError, match=r"normaliser_recall is 1\.5; expected a share"):
        NormaliserEstimation(least_recall=1.5)
