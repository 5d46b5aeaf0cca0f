"""The Metropolis independence sampler against its transition matrix, written out."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from retrograd.objectives.functional import ChainDraws, draw_chain, metropolis_independence, propose

COPIES = 20_000


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def laws(seed: int = 0, k: int = 6, scale: float = 1.0) -> tuple[Tensor, Tensor]:
    """A target π and a proposal q over k states."""
    draw = torch.randn(2, k, generator=seeded(seed), dtype=torch.float64).mul(scale)
    return draw.softmax(dim=-1).unbind()


def kernel(pi: Tensor, q: Tensor) -> Tensor:
    """T[i, j]: to propose j and accept it; what is refused stays at i."""
    omega = pi / q
    step = q * (omega.unsqueeze(0) / omega.unsqueeze(1)).clamp(max=1.0)
    step.fill_diagonal_(0.0)
    return step + torch.diag(1.0 - step.sum(dim=1))


def chains(pi: Tensor, q: Tensor, draws: int, previous: int | None, seed: int):
    log_pi, log_q = pi.log().repeat(COPIES, 1), q.log().repeat(COPIES, 1)
    rng = seeded(seed)
    carried = None if previous is None else torch.full((COPIES,), previous)
    return metropolis_independence(log_pi, log_q, draw_chain(log_q, draws, carried, rng))


def offered(start: int, *proposals: int) -> ChainDraws:
    uniform = torch.rand(1, len(proposals), generator=seeded(0), dtype=torch.float64)
    return ChainDraws(torch.tensor([start]), torch.tensor([proposals]), uniform)


def one_hot(state: Tensor, k: int) -> Tensor:
    return torch.nn.functional.one_hot(state, k).double()


@pytest.mark.parametrize("seed", range(5))
def test_the_written_out_kernel_keeps_its_target_and_has_the_eigenvalue_of_theory(seed: int) -> None:
    pi, q = laws(seed)
    transition = kernel(pi, q)
    torch.testing.assert_close(pi @ transition, pi)
    eigenvalues = torch.linalg.eigvals(transition).real.sort(descending=True).values
    assert eigenvalues[0].item() == pytest.approx(1.0)
    assert eigenvalues[1].item() == pytest.approx(1.0 - 1.0 / (pi / q).max().item())


@pytest.mark.parametrize("previous", range(6))
def test_one_step_is_a_row_of_the_kernel(previous: int, mean_equals) -> None:
    pi, q = laws(1)
    chain = chains(pi, q, 1, previous, seed=previous)
    mean_equals(one_hot(chain.last, 6), kernel(pi, q)[previous])


@pytest.mark.parametrize("draws", [1, 2, 8])
def test_visits_of_a_cold_chain_follow_the_mean_of_its_first_states(draws: int, mean_equals) -> None:
    pi, q = laws(2)
    transition = kernel(pi, q)
    states = [q @ torch.linalg.matrix_power(transition, t) for t in range(1, draws + 1)]
    chain = chains(pi, q, draws, None, seed=draws)
    mean_equals(chain.share, torch.stack(states).mean(dim=0))
    mean_equals(one_hot(chain.last, 6), states[-1])


@pytest.mark.parametrize("draws", [2, 5])
def test_a_carried_chain_goes_on_from_where_it_stood(draws: int, mean_equals) -> None:
    pi, q = laws(3)
    transition = kernel(pi, q)
    chain = chains(pi, q, draws, 4, seed=7)
    mean_equals(one_hot(chain.last, 6), torch.linalg.matrix_power(transition, draws)[4])
    states = [torch.linalg.matrix_power(transition, t)[4] for t in range(1, draws + 1)]
    mean_equals(chain.share, torch.stack(states).mean(dim=0))


def test_a_chain_started_in_its_target_stays_there(mean_equals) -> None:
    pi, q = laws(4)
    rng = seeded(0)
    previous = propose(pi.log().repeat(COPIES, 1), 1, rng).squeeze(1)
    log_q = q.log().repeat(COPIES, 1)
    drawn = draw_chain(log_q, 3, previous, rng)
    mean_equals(metropolis_independence(pi.log().repeat(COPIES, 1), log_q, drawn).share, pi)


def test_the_weight_that_stands_is_that_of_the_present_state() -> None:
    """From a bad state to an excellent one, then to one in between: only a stale weight would let it move on."""
    log_pi = torch.tensor([[-200.0, -100.0, 0.0]], dtype=torch.float64)
    log_q = torch.full((1, 3), -math.log(3), dtype=torch.float64)
    chain = metropolis_independence(log_pi, log_q, offered(0, 2, 1, 1))
    assert chain.share.tolist() == [[0.0, 0.0, 1.0]]
    assert chain.acceptance.item() == pytest.approx(1 / 3)


def test_a_proposal_equal_to_the_target_is_always_accepted() -> None:
    pi, _ = laws(5)
    assert (chains(pi, pi, 10, None, seed=0).acceptance == 1.0).all()


def test_the_start_of_a_cold_chain_is_no_visit() -> None:
    log_pi, log_q = torch.zeros(1, 3).log_softmax(-1), torch.zeros(1, 3).log_softmax(-1)
    chain = metropolis_independence(log_pi, log_q, offered(0, 1, 2))
    assert chain.share.tolist() == [[0.0, 0.5, 0.5]]


def test_constants_in_target_and_proposal_cancel() -> None:
    pi, q = laws(6)
    drawn = draw_chain(q.log().repeat(50, 1), 20, None, seeded(0))
    plain = metropolis_independence(pi.log().repeat(50, 1), q.log().repeat(50, 1), drawn)
    shifted = metropolis_independence(pi.log().repeat(50, 1) - 300, q.log().repeat(50, 1) - 7, drawn)
    torch.testing.assert_close(plain.share, shifted.share)


def test_proposals_follow_the_categorical_and_skip_what_is_absent(mean_equals) -> None:
    q = torch.tensor([0.0, 0.5, 0.0, 0.125, 0.375, 0.0], dtype=torch.float64)
    drawn = propose(q.log().repeat(COPIES, 1), 1, seeded(0))
    mean_equals(one_hot(drawn.squeeze(1), 6), q)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_proposals_need_not_be_normalised_and_may_be_of_one_column(dtype: torch.dtype) -> None:
    log_q = torch.full((1000, 4), -math.inf, dtype=dtype)
    log_q[:, 2] = -300.0
    assert (propose(log_q, 50, seeded(0)) == 2).all()


def test_an_empty_row_yields_no_column_no_visit_and_no_nan() -> None:
    log_q = torch.tensor([[-math.inf] * 3, [-1.0, -1.0, -math.inf]])
    drawn = draw_chain(log_q, 4, torch.tensor([1, 2]), seeded(0))
    start = drawn.start
    assert (start[0], start[1] in (0, 1)) == (-1, True)  # a carried column that is absent today makes the chain cold
    assert (drawn.proposals[0] == -1).all()
    chain = metropolis_independence(log_q, log_q, drawn)
    assert chain.share[0].tolist() == [0.0, 0.0, 0.0]
    assert chain.share[1].sum() == 1.0
    assert (chain.last[0].item(), chain.acceptance[0].item()) == (-1, 0.0)


def test_a_state_of_probability_zero_is_left_and_not_counted() -> None:
    log_pi, log_q = torch.tensor([[-math.inf, -0.5]]), torch.tensor([[0.5, 0.5]]).log()
    chain = metropolis_independence(log_pi, log_q, offered(0, 0, 1, 0, 0))
    assert chain.share.tolist() == [[0.0, 1.0]]
    assert chain.last.item() == 1
