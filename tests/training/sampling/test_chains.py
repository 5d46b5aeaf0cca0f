"""Check chains carried from visit to visit: one per (example, target), exact in law, and saved whole."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from retrograd.objectives import CandidateScores, JointStochasticApproximation, TokenLogLikelihood
from retrograd.rag.candidates import NULL_ROW, Candidates, find_column
from retrograd.training.sampling.chains import Chains
from retrograd.types import UserError

K, COPIES, DRAWS = 6, 20_000, 2
ZERO = torch.zeros(2, dtype=torch.long)


def candidates(rows: list[list[int]], prior_only: list[bool] | None = None) -> Candidates:
    block = torch.tensor(rows)
    alone = None if prior_only is None else torch.tensor(prior_only).unsqueeze(-1)
    return Candidates(block, CandidateScores(torch.zeros(block.shape)), prior_only=alone)


def test_a_chain_is_taken_up_for_the_same_target_only() -> None:
    chains = Chains(torch.tensor([1, 3, 2]))
    one, other = torch.tensor([1, 2]), torch.tensor([0, 2])
    assert chains.rows(one, ZERO) is None
    chains.remember(one, torch.tensor([2, 0]), candidates([[7, 8], [9, NULL_ROW]]), torch.tensor([1, 1]))
    assert chains.rows(one, torch.tensor([2, 0])).tolist() == [8, NULL_ROW]
    assert chains.rows(one, torch.tensor([1, 1])) is None
    assert chains.rows(other, torch.tensor([0, 0])).tolist() == [-1, NULL_ROW]


def test_without_a_chain_nothing_is_stored_and_a_cold_one_is_forgotten() -> None:
    chains = Chains(torch.ones(2, dtype=torch.long))
    both = torch.arange(2)
    chains.remember(both, ZERO, candidates([[3, 4], [5, 6]]), None)
    assert not chains.has_started
    chains.remember(both, ZERO, candidates([[3, 4], [5, 6]]), torch.tensor([0, 1]))
    chains.remember(both, ZERO, candidates([[3, 4], [5, 6]]), torch.tensor([-1, 0]))
    assert chains.rows(both, ZERO).tolist() == [-1, 5]


def test_a_visit_with_the_priors_candidates_alone_leaves_a_chain_where_it_stood() -> None:
    chains = Chains(torch.ones(2, dtype=torch.long))
    both = torch.arange(2)
    chains.remember(both, ZERO, candidates([[3, 4], [5, 6]]), torch.tensor([0, 0]))
    chains.remember(both, ZERO, candidates([[1, 2], [1, 2]], [True, False]), torch.tensor([1, 1]))
    assert chains.rows(both, ZERO).tolist() == [3, 2]


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    targets = torch.tensor([1, 3])
    chains, again = Chains(targets), Chains(targets)
    chains.remember(torch.arange(2), torch.tensor([0, 2]), candidates([[3, 4], [5, 6]]), torch.tensor([0, 1]))
    save_file(chains.state(), tmp_path / "chains.safetensors")
    again.load(load_file(tmp_path / "chains.safetensors"), passages=7)
    assert again.rows(torch.arange(2), torch.tensor([0, 2])).tolist() == [3, 6]
    assert again.rows(torch.tensor([1]), torch.tensor([0])) is None
    with pytest.raises(UserError, match="2 examples with 4 targets, but this run has 2 with 2"):
        Chains(torch.ones(2, dtype=torch.long)).load(chains.state(), passages=7)
    with pytest.raises(UserError, match="a base of 6 passages does not have"):
        again.load(chains.state(), passages=6)


class Table:
    """A likelihood with log p(y|x,z) of every candidate, in the order of the columns."""

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def at(self, column: Tensor) -> Tensor:
        return self.value.gather(1, column.clamp(min=0)).masked_fill(column < 0, -torch.inf)

    def tokens_at(self, column: Tensor) -> TokenLogLikelihood:
        raise NotImplementedError

    together = at_mixture = supports_at = tokens_at


def law_of(rows: Tensor) -> Tensor:
    return rows.bincount(minlength=K).double() / len(rows)


def kernel(pi: Tensor, q: Tensor) -> Tensor:
    """Return T[i, j], the probability to propose j and accept it; a refused proposal stays at i."""
    omega = pi / q
    step = q * (omega / omega.unsqueeze(1)).clamp(max=1.0)
    step.fill_diagonal_(0.0)
    return step + torch.diag(1.0 - step.sum(dim=1))


def test_two_proposals_a_visit_bring_each_targets_chain_to_its_own_exact_posterior() -> None:
    """The parameters are fixed, two targets visited in random order, candidates in another order each time.

    The law of the rows that `Chains` holds after n visits of a pair is q Tⁿᵈ, written out; it closes in on p(z|x,y).
    """
    rng = torch.Generator().manual_seed(0)
    log_prior = torch.randn(K, generator=rng, dtype=torch.float64).log_softmax(-1)
    log_likelihood = torch.randn(2, K, generator=rng, dtype=torch.float64) - 2
    posterior = (log_prior + log_likelihood).softmax(-1)
    log_q = (posterior.log() + 0.6 * torch.randn(2, K, generator=rng, dtype=torch.float64)).log_softmax(-1)
    objective = JointStochasticApproximation("metropolis", DRAWS, "carried")
    chains, everyone = Chains(torch.full((COPIES,), 2)), torch.arange(COPIES)
    visits = torch.zeros(COPIES, 2, dtype=torch.long)
    for _ in range(8):
        target = torch.randint(2, (COPIES,), generator=rng)
        rows = torch.rand(COPIES, K, generator=rng).argsort(-1)
        stood = chains.rows(everyone, target)
        previous = None if stood is None else find_column(rows, stood)
        scores = CandidateScores(log_prior[rows], log_q[target].gather(1, rows), previous)
        estimate = objective(scores, Table(log_likelihood[target].gather(1, rows)), rng)
        chains.remember(everyone, target, Candidates(rows, scores), estimate.last)
        visits[everyone, target] += 1
    for target in range(2):
        stood = chains.rows(everyone, torch.full((COPIES,), target))
        pi, q = posterior[target], log_q[target].exp()
        off = {}
        for count in range(1, 7):
            exact = q @ torch.linalg.matrix_power(kernel(pi, q), DRAWS * count)
            found = stood[visits[:, target] == count]
            error = (exact * (1 - exact) / len(found)).sqrt()
            assert ((law_of(found) - exact).abs() < 5 * error).all()
            off[count] = float((exact - pi).abs().sum() / 2)
        assert off[1] > 0.02
        assert off[4] < 0.01
        assert float((posterior[0] - posterior[1]).abs().sum() / 2) > 0.2  # or the keys would not matter
