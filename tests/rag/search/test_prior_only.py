"""Candidates that the prior alone found, as at test time; chains that may not go on in a hidden row; rows by id."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.rag.test_rag_model import build, seeded

from retrograd.data.masking import SpanExample
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.objectives import JointStochasticApproximation, Objective, Variational, WakeSleep
from retrograd.rag.candidates import Exclusions
from retrograd.rag.search import RetrievalOptions
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage, UserError


def present(rows: torch.Tensor) -> list[set[int]]:
    return [{row for row in one if row >= 0} for one in rows.tolist()]


def test_a_share_of_the_queries_has_what_the_prior_found_and_nothing_else(
    tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    prior, both = model.retrieve(examples, 2), model.retrieve(examples, 2, RetrievalOptions(posterior=True))
    chain = torch.tensor([3, 3, 4, 4, 5, 0])
    found = model.retrieve(examples, 2, RetrievalOptions(posterior=True, prior_only=0.5), chain, seeded())
    assert found.prior_only is not None
    alone = found.prior_only.squeeze(-1).tolist()
    assert {True, False} == set(alone)
    for one, mine, prior_rows, union in zip(
        alone, present(found.rows), present(prior.rows), present(both.rows), strict=True
    ):
        assert mine == prior_rows if one else mine >= union
    assert (found.scores.previous[found.prior_only.squeeze(-1)] == -1).all()
    assert (found.scores.previous[~found.prior_only.squeeze(-1)] >= 0).all()
    # q is what it always was, over the whole base, at the candidates there are.
    again = model.candidates_at(examples, found.rows, with_posterior=True).scores
    torch.testing.assert_close(found.scores.log_posterior, again.log_posterior)
    torch.testing.assert_close(found.scores.log_prior, again.log_prior)


@pytest.mark.parametrize(
    "objective",
    [JointStochasticApproximation(), JointStochasticApproximation("metropolis", 5), WakeSleep(draws=3), Variational()],
)
def test_from_the_priors_candidates_alone_only_the_generator_learns(
    objective: Objective, tiny_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    found = model.retrieve(examples, 2, RetrievalOptions(posterior=True, prior_only=1.0), rng=seeded())
    estimate = objective(found.scores, model.likelihood(examples, found), seeded())
    estimate.loss.backward()
    assert estimate.loss.isfinite()
    assert model.posterior is not None
    theirs = [*model.retriever.parameters(), *model.posterior.parameters()]
    assert all(weight.grad is None or not weight.grad.any() for weight in theirs)
    assert any(weight.grad is not None and weight.grad.any() for weight in model.generator.parameters())


def test_a_share_needs_a_source_of_randomness(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    with pytest.raises(UserError, match="pass rng"):
        model.retrieve(examples, 2, RetrievalOptions(posterior=True, prior_only=0.5))


def test_a_chain_never_goes_on_in_a_row_that_is_hidden_now(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Saved before the exclusions were what they are, say: the row does not come back through the chain."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    own = torch.arange(len(examples))
    found = model.retrieve(examples, 2, RetrievalOptions(posterior=True), previous_row=own)
    assert not (found.rows == own.unsqueeze(-1)).any()
    assert (found.scores.previous == -1).all()
    other = (own + 1) % len(examples)
    found = model.retrieve(examples, 2, RetrievalOptions(posterior=True), previous_row=other)
    assert (found.rows.gather(1, found.scores.previous.unsqueeze(-1)).squeeze(-1) == other).all()


def test_an_example_may_name_the_passages_that_it_must_not_retrieve() -> None:
    texts = ["the cup holds tea", "The cup  holds tea", "rain caused the flood"]
    base = KnowledgeBase.from_passages(Passage(f"p{i}", "", text) for i, text in enumerate(texts))
    hidden = Exclusions(QuestionAnswering(), base)
    asked = [
        SpanExample("s", "[MASK] caused the flood", ("rain",), "p2", ("p2",)),
        SpanExample("s", "[MASK] caused the flood", ("rain",), "p2"),
        SpanExample("s", "the cup holds tea", ("tea",), "p2", ("p2", "p0")),
        Example("e", "the cup holds tea", ("tea",)),
        SpanExample("s", "?", ("tea",), "p9", ("p9",)),
        SpanExample("s", "the [MASK] holds tea", ("cup",), "p0", ("p0",)),
    ]
    found = [sorted(row for row in rows if row >= 0) for rows in hidden.rows(asked).tolist()]
    assert found == [[2], [], [0, 1, 2], [0, 1], [], [0, 1]]
