"""Candidates drawn from the tail by the prior and the posterior: unbiased for the whole base, query by query."""

from __future__ import annotations

from pathlib import Path
from statistics import NormalDist

import pytest
import torch
from tests.training.test_loop import build

from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.types import Example, UserError

FALSE_ALARM = 1e-6
COPIES = 2_000


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def tiny(encoder: Path, generator: Path) -> tuple[RagModel, list[Example]]:
    model, examples = build(encoder, generator, "query", posterior=True)
    model.refresh_index()
    return model, examples


def mixed(share: float = 0.5, prior_only: float = 0.0) -> RetrievalOptions:
    return RetrievalOptions(posterior=True, tail=3, tail_posterior_share=share, prior_only=prior_only)


@torch.no_grad()
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_sums_over_candidates_are_unbiased_for_the_base(share: float, tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """In 2,000 copies of a query the mean of each row's represented probability is its probability."""
    model, examples = tiny(tiny_encoder, tiny_seq2seq)
    example = examples[0]
    exact = model.retrieve_all([example]).scores.log_prior[0].exp()
    candidates = model.retrieve([example] * COPIES, 1, mixed(share), rng=seeded())
    multiplicity = candidates.scores.log_multiplicity
    assert multiplicity is not None
    represented = (candidates.scores.log_prior + multiplicity).exp().masked_fill(candidates.rows < 0, 0.0)
    by_row = torch.zeros(COPIES, len(exact)).scatter_add_(1, candidates.rows.clamp(min=0), represented)
    is_drawn = by_row.std(dim=0) > 0
    assert int(is_drawn.sum()) >= len(exact) - 3  # but for its own row, the prior's best and the posterior's best
    torch.testing.assert_close(by_row[0, ~is_drawn], exact[~is_drawn])
    error = by_row.std(dim=0) / COPIES**0.5
    z = ((by_row.mean(dim=0) - exact) / error)[is_drawn]
    assert float(z.abs().max()) < NormalDist().inv_cdf(1 - FALSE_ALARM / 2 / len(exact))


@torch.no_grad()
def test_queries_of_the_prior_alone_draw_from_the_prior_alone(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = tiny(tiny_encoder, tiny_seq2seq)
    candidates = model.retrieve(examples, 2, mixed(prior_only=0.5), rng=seeded())
    assert candidates.prior_only is not None
    assert candidates.scores.log_multiplicity is not None
    represented = (candidates.scores.log_prior + candidates.scores.log_multiplicity).exp().sum(dim=-1)
    alone = candidates.prior_only.squeeze(-1)
    assert 0 < int(alone.sum()) < len(examples)
    torch.testing.assert_close(represented[alone], torch.ones(int(alone.sum())))
    assert bool(((represented[~alone] - 1).abs() > 1e-4).all())  # else the proposal knows nothing of the target


def test_a_share_of_a_posterior_that_does_not_search_is_refused(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = tiny(tiny_encoder, tiny_seq2seq)
    with pytest.raises(UserError, match=r"training\.tail_posterior_share is 0\.5, and no posterior searches; set it"):
        model.retrieve(examples, 2, RetrievalOptions(tail=3, tail_posterior_share=0.5), rng=seeded())
