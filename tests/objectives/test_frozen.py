"""The controls: only the generator learns, and nothing reaches a retriever."""

from __future__ import annotations

import math

import pytest
import torch

from retrograd.objectives import FrozenRetriever, NoRetrieval, TopKMarginal

TIGHT = {"rtol": 1e-9, "atol": 1e-9}


@pytest.mark.parametrize("objective", [FrozenRetriever(), FrozenRetriever("together"), NoRetrieval()], ids=repr)
def test_no_retriever_learns(world, objective) -> None:
    found = world(0, k=4).differentiate(objective)
    assert not found.prior.any()
    assert not found.posterior.any()
    assert (found.table.any() or found.closed_book.any()).item()


def test_marginal_gives_the_generator_what_the_renormalised_marginal_gives_it(world) -> None:
    here = world(1, k=4)
    frozen = here.differentiate(FrozenRetriever())
    joint = here.differentiate(TopKMarginal(normaliser="candidates"))
    torch.testing.assert_close(frozen.estimate.loss, joint.estimate.loss, **TIGHT)
    torch.testing.assert_close(frozen.table, joint.table, **TIGHT)


def test_together_reads_the_best_passage_first(world) -> None:
    here = world(2, b=1, k=3, t=1)
    here.prior_logits.data[:] = torch.tensor([[1.0, 3.0, 2.0, 0.0, 0.0, 0.0]])
    found = here.differentiate(FrozenRetriever("together"))
    assert found.table[0, :, 0].tolist() == [-0.125, -0.5, -0.25]
    assert found.closed_book.tolist() == [-1.0]


def test_together_leaves_absent_passages_out_of_the_prompt(world) -> None:
    here = world(3, b=2, k=3, t=1).with_absent(torch.tensor([[True, False, False], [True, True, True]]))
    found = here.differentiate(FrozenRetriever("together"))
    assert not found.table[0, 0].any()
    assert not found.table[1].any()
    assert found.closed_book.tolist() == [-0.5, -0.5]  # a query without passages is still answered
    assert found.estimate.diagnostics["empty_share"].item() == 0.5


def test_no_retrieval_is_the_closed_book(world) -> None:
    here = world(4).with_absent(torch.ones(2, 6, dtype=torch.bool))
    found = here.differentiate(NoRetrieval())
    torch.testing.assert_close(found.estimate.loss.detach(), -here.closed_book.detach().mean())
    assert found.closed_book.tolist() == [-0.5, -0.5]
    assert not found.table.any()


def test_together_without_any_candidate_is_no_retrieval(world) -> None:
    here = world(5).with_absent(torch.ones(2, 6, dtype=torch.bool))
    together = here.differentiate(FrozenRetriever("together")).estimate.loss
    torch.testing.assert_close(together, here.differentiate(NoRetrieval()).estimate.loss)
    assert math.isfinite(together.item())
