"""Log-space algebra: values against the written-out formula, gradients finite wherever something is absent."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from retrograd.objectives import functional as f

INF = math.inf


def holey(seed: int) -> Tensor:
    """Six rows of scores: full, with holes, all but one absent, all absent, huge, tiny."""
    value = torch.randn(6, 5, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    value[1, [0, 3]] = -INF
    value[2, [0, 1, 2, 4]] = -INF
    value[3] = -INF
    value[4] += 1e4
    value[5] *= 1e-4
    return value.requires_grad_()


def gradient(total: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(total, leaf)[0]


@settings(max_examples=20, derandomize=True)
@given(st.integers(0, 10**6))
def test_masked_logsumexp_is_logsumexp_and_its_gradient_is_the_softmax(seed: int) -> None:
    value = holey(seed)
    total = f.masked_logsumexp(value)
    plain = value.detach().logsumexp(dim=-1)
    torch.testing.assert_close(total.detach(), plain)
    expected = value.detach().softmax(dim=-1).nan_to_num(0.0)
    torch.testing.assert_close(gradient(total.masked_fill(total == -INF, 0.0).sum(), value), expected)


def test_masked_log_softmax_renormalises_what_is_present() -> None:
    value = holey(1)
    out = f.masked_log_softmax(value)
    sums = out.detach().exp().sum(dim=-1)
    torch.testing.assert_close(sums, torch.tensor([1.0, 1, 1, 0, 1, 1], dtype=torch.float64))
    assert out[2, 3] == 0.0  # one candidate has probability 1
    assert (out[3] == -INF).all()
    assert gradient(f.weighted_sum(out.detach().exp(), out).sum(), value).isfinite().all()


@pytest.mark.parametrize("offset", [1e3, 1e5, 1e7])
def test_masked_log_softmax_of_large_logits_sums_to_one(offset: float) -> None:
    value = torch.randn(6, 5, generator=torch.Generator().manual_seed(2)) + offset
    out = f.masked_log_softmax(value)
    eps = torch.finfo(torch.float32).eps
    torch.testing.assert_close(out.exp().sum(dim=-1), torch.ones(6), atol=8 * eps, rtol=0)
    torch.testing.assert_close(out, value.double().log_softmax(-1).float(), atol=8 * eps, rtol=8 * eps)


def test_weighted_sum_gives_nothing_to_weight_zero() -> None:
    weight = torch.tensor([[0.0, 0.25, 0.75]], dtype=torch.float64, requires_grad=True)
    value = torch.tensor([[-INF, -2.0, -4.0]], dtype=torch.float64, requires_grad=True)
    total = f.weighted_sum(weight, value)
    assert total.item() == -3.5
    assert gradient(total.sum(), value).tolist() == [[0.0, 0.25, 0.75]]
    assert gradient(f.weighted_sum(weight, value).sum(), weight).isfinite().all()


def test_weighted_sum_does_not_hide_an_impossible_passage_that_has_weight() -> None:
    assert f.weighted_sum(torch.tensor([0.5, 0.5]), torch.tensor([-INF, -1.0])).item() == -INF


@pytest.mark.parametrize("function", [f.entropy, f.masked_logsumexp, f.masked_log_softmax])
def test_gradients_are_finite_in_every_kind_of_row(function) -> None:
    value = holey(2)
    out = function(f.masked_log_softmax(value))
    assert gradient(out.masked_fill(out == -INF, 0.0).sum(), value).isfinite().all()


def test_entropy_of_uniform_certain_and_empty() -> None:
    rows = torch.tensor([[0.25] * 4, [1.0, 0, 0, 0], [0.0] * 4], dtype=torch.float64).log()
    torch.testing.assert_close(f.entropy(rows), torch.tensor([math.log(4), 0.0, 0.0], dtype=torch.float64))


def test_kl_takes_the_expectation_under_its_first_argument() -> None:
    p, q = torch.tensor([0.9, 0.1, 0.0]), torch.tensor([0.5, 0.25, 0.25])
    expected = 0.9 * math.log(0.9 / 0.5) + 0.1 * math.log(0.1 / 0.25)
    assert f.kl_p_q(p.log(), q.log()).item() == pytest.approx(expected, abs=1e-6)
    assert f.kl_p_q(q.log(), p.log()).item() == INF
    assert f.kl_p_q(p.log(), p.log()).item() == 0.0


def test_effective_sample_size_counts_equal_weights() -> None:
    weight = torch.tensor([[0.25, 0.25, 0.25, 0.25], [1.0, 0, 0, 0], [0.5, 0.5, 0, 0], [0.0] * 4])
    assert f.effective_sample_size(weight).tolist() == [4.0, 1.0, 2.0, 0.0]


def test_importance_efficiency_is_one_for_equal_weights_and_one_in_n_for_a_single_heavy_draw() -> None:
    log_weight = torch.tensor([[3.0, 3.0, 3.0], [0.0, -INF, -INF], [math.log(2.0), 0.0, -INF], [-INF] * 3])
    count = torch.tensor([[2.0, 1.0, 0.0], [1.0, 3.0, 0.0], [1.0, 2.0, 0.0], [4.0, 0.0, 0.0]])
    by_hand = torch.tensor([1.0, 1 / 4, (2 + 2) ** 2 / (3 * (4 + 2)), 0.0])
    torch.testing.assert_close(f.importance_efficiency(log_weight, count), by_hand)


def test_responsibilities_are_bayes_rule() -> None:
    prior, likelihood = torch.tensor([[0.2, 0.3, 0.1]]), torch.tensor([[0.5, 0.1, 0.0]])
    posterior = f.responsibilities(prior.log(), likelihood.log())
    torch.testing.assert_close(posterior, torch.tensor([[0.1 / 0.13, 0.03 / 0.13, 0.0]]))
    assert f.log_marginal(prior.log(), likelihood.log()).item() == pytest.approx(math.log(0.13))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_log1mexp_is_accurate_at_both_ends(dtype: torch.dtype) -> None:
    values = [-1e-6, -1e-3, -0.1, -math.log(2), -1.0, -10.0, -80.0]
    value = torch.tensor(values, dtype=dtype, requires_grad=True)
    expected = [math.log(-math.expm1(one)) if one > -0.7 else math.log1p(-math.exp(one)) for one in values]
    out = f.log1mexp(value)
    torch.testing.assert_close(out.detach(), torch.tensor(expected, dtype=dtype))
    slope = [-math.exp(one) / -math.expm1(one) for one in values]
    torch.testing.assert_close(gradient(out.sum(), value), torch.tensor(slope, dtype=dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_log1mexp_keeps_finite_gradients_where_nothing_is_left_or_nothing_was_taken(dtype: torch.dtype) -> None:
    value = torch.tensor([0.0, 1e-7, -INF, -1e-30], dtype=dtype, requires_grad=True)
    out = f.log1mexp(value)
    assert out[:2].tolist() == [-INF, -INF]
    assert out[2] == 0.0
    assert gradient(out[[0, 1, 2]].sum(), value).tolist() == [0.0, 0.0, 0.0, 0.0]


def test_columns_where_compacts_and_spread_puts_back() -> None:
    wanted = torch.tensor([[True, False, True, False], [False, False, False, True], [False] * 4])
    column = f.columns_where(wanted)
    assert column.tolist() == [[0, 2], [3, -1], [-1, -1]]
    value = torch.arange(12.0).reshape(3, 4).requires_grad_()
    back = f.put_back(f.take(value, column), column, 4)
    torch.testing.assert_close(back.detach(), value.detach().masked_fill(~wanted, -INF))
    total = back.masked_fill(~wanted, 0.0).sum()
    assert gradient(total, value).tolist() == wanted.float().tolist()


def test_columns_where_of_nothing_at_all() -> None:
    assert f.columns_where(torch.zeros(3, 0, dtype=torch.bool)).shape == (3, 0)
    assert f.columns_where(torch.zeros(3, 4, dtype=torch.bool)).shape == (3, 0)


@pytest.mark.parametrize(
    ("mass", "kept"), [(0.5, [0, 1, 0, 0]), (0.6, [1, 1, 0, 0]), (0.95, [1, 1, 1, 0]), (1.0, [1, 1, 1, 0])]
)
def test_cover_keeps_the_fewest_heaviest(mass: float, kept: list[int]) -> None:
    weight = torch.tensor([[0.25, 0.5625, 0.1875, 0.0], [0.0] * 4])
    assert f.cover(weight, mass).int().tolist() == [kept, [0] * 4]
    assert f.cover(weight * 4, mass).int().tolist() == [kept, [0] * 4]


def test_nothing_is_proposed_where_there_are_no_candidates() -> None:
    assert f.propose(torch.empty(2, 0), 3, torch.Generator()).tolist() == [[-1] * 3] * 2
