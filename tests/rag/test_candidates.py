"""Candidates: unions, hidden rows, and log-probabilities over the whole base against dense sums."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.objectives.checks import check_log_probability
from retrograd.rag.candidates import (
    Exclusions,
    find_column,
    log_probability,
    pad_rows,
    renew_log_normaliser,
    union,
)
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage

N, D, B, K = 9, 4, 3, 4


def index_of(vectors: torch.Tensor) -> ExactIndex:
    return ExactIndex(vectors, base_fingerprint="base", encoder_fingerprint="encoder")


@pytest.fixture
def world() -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(B, D, generator=rng, dtype=torch.float64)
    return query, torch.randn(N, D, generator=rng, dtype=torch.float64)


def test_union_keeps_first_appearance_and_pads_at_the_end() -> None:
    found = union(torch.tensor([[3, 1, -1], [5, 6, 7]]), torch.tensor([[1, 4], [7, 6]]))
    assert found.tolist() == [[3, 1, 4], [5, 6, 7]]
    assert union(torch.tensor([[2, -1], [0, 1]])).tolist() == [[2, -1], [0, 1]]
    assert union(torch.tensor([[-1, -1]])).tolist() == [[-1]]


def test_column_of_finds_the_row_and_padding_is_nowhere() -> None:
    rows = torch.tensor([[4, 2, -1], [7, -1, -1], [1, 0, -1]])
    assert find_column(rows, torch.tensor([2, 9, -1])).tolist() == [1, -1, -1]


def test_padded_rows_of_unequal_lists() -> None:
    assert pad_rows([[1, 2], [], [3]]).tolist() == [[1, 2], [-1, -1], [3, -1]]
    assert pad_rows([[], []]).shape == (2, 0)


@pytest.mark.parametrize("stale", [False, True])
def test_log_probability_is_over_the_whole_base_in_value_and_gradient(
    world: tuple[torch.Tensor, torch.Tensor], stale: bool
) -> None:
    """The dense softmax in which the candidates' stored embeddings were exchanged for the fresh ones."""
    query, vectors = world
    query = query.requires_grad_()
    index = index_of(vectors)
    neighbours = index.search(query, K)
    rows = neighbours.row
    drift = 0.3 * torch.randn(B, K, D, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    fresh = (vectors[rows] + drift * stale).requires_grad_()
    found = log_probability(query, fresh, rows, neighbours, index, fresh=True)

    twin_query, twin_fresh = query.detach().clone().requires_grad_(), fresh.detach().clone().requires_grad_()
    all_logits = (twin_query @ vectors.T).scatter(1, rows, (twin_query.unsqueeze(1) * twin_fresh).sum(-1))
    expected = all_logits.log_softmax(-1).gather(1, rows)

    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    weight = torch.rand(B, K, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    gradient = torch.autograd.grad((found * weight).sum(), [query, fresh])
    wanted = torch.autograd.grad((expected * weight).sum(), [twin_query, twin_fresh])
    for one, other in zip(gradient, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-9)


@pytest.mark.parametrize("scale", [1.0, 50.0, 2_000.0, 100_000.0])
def test_shares_of_large_logits_sum_to_one_at_most(scale: float) -> None:
    """log Z is added up by the index and logits by the candidates, in other orders: they differ in the last bits."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(40, 384, generator=rng)
    query = vectors[:8] * (scale / vectors.square().sum(-1).mean()) + torch.randn(8, 384, generator=rng) * 1e-3
    index = index_of(vectors)
    excluded = torch.empty(8, 0, dtype=torch.long)
    neighbours = index.search(query, 4, excluded)
    log_prior = log_probability(query, vectors[neighbours.row], neighbours.row, neighbours, index, fresh=False)
    check_log_probability("log_prior", log_prior)
    assert (log_prior.exp().sum(-1) <= 1 + 4 * torch.finfo(torch.float32).eps).all()


def test_more_than_rounding_is_left_for_the_objective_to_refuse() -> None:
    rng = torch.Generator().manual_seed(0)
    vectors, query = torch.randn(9, 4, generator=rng), torch.randn(3, 4, generator=rng)
    index = index_of(vectors)
    neighbours = index.search(query, 4, torch.empty(3, 0, dtype=torch.long))
    wrong = replace(neighbours, log_normaliser=neighbours.log_normaliser - 1.0)
    log_prior = log_probability(query, vectors[neighbours.row], neighbours.row, wrong, index, fresh=False)
    with pytest.raises(ValueError, match="a row sums to"):
        check_log_probability("log_prior", log_prior)


def test_padding_is_absent_and_a_query_without_rows_is_not_nan(world: tuple[torch.Tensor, torch.Tensor]) -> None:
    query, vectors = world
    query = query.requires_grad_()
    index = index_of(vectors)
    everything = torch.arange(N).expand(B, -1).clone()
    everything[1:] = -1
    neighbours = index.search(query, K, everything)
    value = log_probability(query, index.vectors(neighbours.row), neighbours.row, neighbours, index, fresh=True)
    assert (value[0] == -torch.inf).all()
    assert value[1:].exp().sum(-1).lt(1).all()
    value.masked_fill(value == -torch.inf, 0.0).sum().backward()
    assert query.grad is not None
    assert query.grad.isfinite().all()


def test_an_example_never_meets_its_own_text_nor_a_copy_of_it() -> None:
    task = RelationExtraction.semeval()
    title = task.choices[0]
    texts = ["The @ cup @ holds # tea # .", "A @ dog @ eats # grass # .", "the  @ CUP @ holds # tea # ."]
    base = KnowledgeBase.from_passages(Passage(str(i), title, text) for i, text in enumerate(texts))
    hidden = Exclusions(task, base)
    asked = [
        Example("a", "The @ cup @ holds # tea # .", (title,)),
        Example("b", "The cup holds @ tea @ and a # spoon # .", (title,)),
        Example("c", "The # cup # holds @ tea @ .", (title,)),
    ]
    found = [sorted(row for row in rows if row >= 0) for rows in hidden.rows(asked).tolist()]
    assert found == [[0, 2], [], [0, 2]]


@pytest.mark.parametrize("drift", [0.01, 1.0, 9.0, 60.0])
@pytest.mark.parametrize("held", [2, 5])
def test_a_normaliser_is_renewed_whatever_the_drift(drift: float, held: int) -> None:
    """Rows that held nearly everything may lose it, and nothing is lost in the subtraction."""
    rng = torch.Generator().manual_seed(0)
    stored = torch.randn(4, 6, generator=rng, dtype=torch.float64)
    stored[:, :held] += 12.0
    fresh = stored.clone()
    fresh[:, :held] -= drift
    fresh[0, :held] += 2 * drift  # and may gain as well
    leaf = fresh[:, :held].float().requires_grad_()
    total = renew_log_normaliser(stored[:, :held].float(), leaf, stored.logsumexp(-1).float())
    exact = fresh.logsumexp(-1)
    # A logit of 12 is known to 1e-6 in fp32, and so is the share of Z that the other rows hold: as good as it gets.
    allowed = 1e-5 + 4e-6 / (exact - stored.logsumexp(-1)).exp()
    assert ((total.double() - exact).abs() <= allowed).all()
    total.sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.isfinite().all()
    share = (fresh[:, :held] - exact.unsqueeze(-1)).exp()
    assert ((leaf.grad.double() - share).abs() <= allowed.unsqueeze(-1)).all()


@pytest.mark.parametrize("gain", [0.9, 1.1, 30.0, 88.0, 89.0, 200.0, 5_000.0])
@pytest.mark.parametrize("share", [0.0, -40.0, -120.0])
def test_a_normaliser_is_renewed_however_much_a_logit_gains(gain: float, share: float) -> None:
    """exp of the gain overflows at 88.7 nats, and the row's share of Z underflows at -103."""
    stored = torch.tensor([[share, 0.0, -5.0, -torch.inf]])
    fresh = torch.tensor([[share + gain, 0.1, -5.0, -torch.inf]], requires_grad=True)
    total = torch.tensor([1.5])
    renewed = renew_log_normaliser(stored, fresh, total)
    others = (total.double().exp() - stored.double().logsumexp(-1).exp()).log()
    exact = torch.logaddexp(others, fresh.detach().double().logsumexp(-1))
    # Rounded are the largest logit, and the share of the others where nearly nothing is left of it.
    assert abs(float(renewed.detach().double() - exact)) <= 4 * torch.finfo(torch.float32).eps * max(gain, 10.0)
    renewed.sum().backward()
    assert fresh.grad is not None
    expected = (fresh.detach().double() - exact.unsqueeze(-1)).exp()
    torch.testing.assert_close(fresh.grad.double(), expected, rtol=1e-4, atol=1e-6)


def test_a_normaliser_of_absent_rows_is_left_alone() -> None:
    nothing = torch.full((2, 3), -torch.inf)
    total = torch.tensor([1.5, -2.0], requires_grad=True)
    found = renew_log_normaliser(nothing, nothing, total)
    torch.testing.assert_close(found, total)
    found.sum().backward()
    assert torch.equal(total.grad, torch.ones(2))
