"""Retrieval over an index that only estimates log Z: probabilities over the base, from the best rows and draws."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients
from tests.training.test_loop import build_over_faiss

from retrograd.rag.candidates import Candidates
from retrograd.rag.embedding import build_index
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.types import Example

pytest.importorskip("faiss")
BASE = 12


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def retrieve(model: RagModel, examples: list[Example], draws: int, seed: int = 0) -> Candidates:
    return model.retrieve(examples, 2, RetrievalOptions(posterior=True, normaliser_draws=draws), rng=seeded(seed))


def total_probability(candidates: Candidates) -> torch.Tensor:
    return candidates.scores.log_prior.exp().sum(dim=-1)


def test_with_a_draw_for_every_row_scores_and_gradients_are_those_of_the_exact_index(
    tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    """Those of an example's own rows are in no log Z: they are excluded from what is counted and from what is drawn."""
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    scores, gradients = [], []
    for index in (model.index, build_index(model.passage_side, model.task, model.base)):
        model.use_index(index)
        candidates = retrieve(model, examples, BASE)
        assert candidates.scores.log_posterior is not None
        scores.append(candidates)
        log_probability = torch.cat([candidates.scores.log_prior, candidates.scores.log_posterior])
        model.zero_grad()
        log_probability[log_probability.isfinite()].square().sum().backward()
        weights = [*model.parts()["prior"], *model.parts()["posterior"]]
        gradients.append(torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None]))
    estimated, exact = scores
    assert torch.equal(estimated.rows, exact.rows)
    torch.testing.assert_close(estimated.scores.log_prior, exact.scores.log_prior)
    torch.testing.assert_close(estimated.scores.log_posterior, exact.scores.log_posterior)
    assert [error.tolist() for error in estimated.log_z_errors] == [[0.0] * BASE] * 2
    assert exact.log_z_errors == ()
    assert_same_gradients(gradients[:1], gradients[1:], TINY_TERMS, TINY_DEPTH)


def test_few_draws_give_an_error_and_a_seed_repeats(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    one, again, other = (retrieve(model, examples, 2, seed) for seed in (1, 1, 2))
    assert torch.equal(one.scores.log_prior, again.scores.log_prior)
    assert not torch.equal(one.scores.log_prior, other.scores.log_prior)
    assert all(bool((error > 0).any()) for error in one.log_z_errors)  # two draws of one row differ by nothing
    # Every candidate is counted in log Z, those that the posterior alone found, too.
    assert bool((total_probability(one) <= 1 + 1e-6).all())
    with pytest.raises(ValueError, match="rows drawn at random; pass rng"):
        model.retrieve(examples, 2, RetrievalOptions(normaliser_draws=2))


def test_without_draws_probabilities_are_over_the_candidates(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    over_candidates, over_base = retrieve(model, examples, 0), retrieve(model, examples, 2)
    torch.testing.assert_close(total_probability(over_candidates), torch.ones(BASE))
    assert over_candidates.log_z_errors == ()
    assert bool((total_probability(over_base) < 1).all())


@torch.no_grad()
def test_every_candidate_is_counted_and_none_is_drawn(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Where another search found all rows, two draws and two best rows of this one leave nothing to estimate."""
    model, examples = build_over_faiss(tiny_encoder, tiny_seq2seq, "query", posterior=True)
    every = torch.arange(BASE).expand(len(examples), -1)
    options = RetrievalOptions(extra_rows=every, normaliser_draws=2)
    candidates = model.retrieve(examples, 2, options, rng=seeded())
    assert [error.tolist() for error in candidates.log_z_errors] == [[0.0] * BASE]
    torch.testing.assert_close(total_probability(candidates), torch.ones(BASE))
