"""Hybrid search, v ⟨h(x), h(z)⟩ beside ⟨e(x), e(z)⟩ / T: probabilities by hand, the gradient of v, what moves."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.test_rag_model import build as built
from tests.rag.test_staleness import disturb
from tests.rag.variants import variant
from tests.training.test_loop import run, stage
from torch import Tensor

from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.retriever import Retriever
from retrograd.objectives import JointStochasticApproximation, Objective, TopKMarginal
from retrograd.rag.likelihood import CopySettings
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search.substitution import choose_unrelated_rows
from retrograd.rag.search_kinds import UNRELATED
from retrograd.rag.staleness import Probe, describe_index_fault, measure_drift, measure_staleness
from retrograd.training.stage import CopyEvidence
from retrograd.types import Example

DIMENSION = 64


def build(encoder: Path, generator: Path, weight: float = 0.4, trained="query") -> tuple[RagModel, list[Example]]:
    """`tests.rag.test_rag_model.build`, and words; the posterior's weight is 0.9."""
    model, examples = built(encoder, generator, trained=trained)
    texts = [model.task.passage_text(passage) for passage in model.base]
    lexical = LexicalProjection(WordStatistics.of(texts), DIMENSION)
    assert model.posterior is not None
    for retriever, its in ((model.retriever, weight), (model.posterior, 0.9)):
        retriever.query_encoder.lexical = retriever.passage_encoder.lexical = lexical
        retriever.lexical_weight = torch.nn.Parameter(torch.tensor(its))
    model.refresh_index()
    return model, examples


def logits(model: RagModel, examples: list[Example], posterior: bool = False) -> Tensor:
    """By hand; an example's own passage is hidden."""
    who = model.posterior if posterior else model.retriever
    assert who is not None
    assert who.lexical_weight is not None
    read = model.task.posterior_text if posterior else lambda example, _: model.task.query_text(example)
    queries = [read(example, example.target) for example in examples]
    passages = [model.task.passage_text(passage) for passage in model.base]
    width, lexical = who.query_encoder.semantic_dimension, who.query_encoder.lexical
    assert lexical is not None
    cosine = who.query_encoder.embed(queries)[:, :width] @ who.passage_encoder.embed(passages)[:, :width].T
    found = cosine / 0.1 + who.lexical_weight * (lexical(queries) @ lexical(passages).T)
    return found.masked_fill(torch.eye(len(examples), len(passages), dtype=torch.bool), -torch.inf)


@pytest.mark.parametrize("trained", ["both", "query", "none"])
def test_prior_and_posterior_are_the_formula_over_the_whole_base(tiny_encoder, tiny_seq2seq, trained):
    model, examples = build(tiny_encoder, tiny_seq2seq, trained=trained)
    whole = model.retrieve_all(examples, with_posterior=True).scores
    torch.testing.assert_close(whole.log_prior, logits(model, examples).log_softmax(-1))
    assert whole.log_posterior is not None
    torch.testing.assert_close(whole.log_posterior, logits(model, examples, posterior=True).log_softmax(-1))
    few = model.retrieve(examples, 2)
    torch.testing.assert_close(few.scores.log_prior, whole.log_prior.gather(1, few.rows))
    assert torch.equal(few.rows, whole.log_prior.topk(2).indices)


def test_the_weight_decides_what_is_found(tiny_encoder, tiny_seq2seq):
    none, examples = build(tiny_encoder, tiny_seq2seq, weight=0.0)
    plain, _ = built(tiny_encoder, tiny_seq2seq)
    torch.testing.assert_close(
        none.retrieve_all(examples).scores.log_prior, plain.retrieve_all(examples).scores.log_prior
    )
    large, _ = build(tiny_encoder, tiny_seq2seq, weight=1e3)
    lexical = large.retriever.query_encoder.lexical
    assert lexical is not None
    queries = [large.task.query_text(example) for example in examples]
    score = lexical(queries) @ lexical([large.task.passage_text(passage) for passage in large.base]).T
    best = score.fill_diagonal_(-torch.inf).argmax(dim=-1)
    assert torch.equal(large.retrieve(examples, 1).rows[:, 0], best)


@pytest.mark.parametrize("objective", [TopKMarginal(), JointStochasticApproximation()])
def test_the_gradient_of_the_weight_is_that_of_the_exact_objective(tiny_encoder, tiny_seq2seq, objective: Objective):
    """Over the whole base both objectives are exact: ∂/∂v of -log Σ_z p(z|x) p(y|x,z)."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    found = model.retrieve_all(examples, with_posterior=True)
    likelihood = model.copy_likelihood(examples, found, CopySettings())
    loss = objective(found.scores, likelihood, torch.Generator().manual_seed(0)).loss
    weight = model.retriever.lexical_weight
    assert weight is not None
    (gradient,) = torch.autograd.grad(loss, [weight])
    columns = torch.arange(len(model.base)).expand(len(examples), -1)
    exact = -torch.logsumexp(logits(model, examples).log_softmax(-1) + likelihood.at(columns), dim=-1).mean()
    (expected,) = torch.autograd.grad(exact, [weight])
    assert abs(float(expected)) > 1e-3
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("tower", "scale"), [(0.0, 0.05), (1e-3, 0.0), (1e-3, 0.05)])
def test_the_weight_learns_at_its_own_rate(tiny_encoder, tiny_seq2seq, tmp_path, tower, scale):
    model, examples = build(tiny_encoder, tiny_seq2seq, weight=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    warm = stage(TopKMarginal(), CopyEvidence(), epochs=5)
    rates = {"generator_learning_rate": 0.0, "retriever_learning_rate": tower, "scale_learning_rate": scale}
    lines = run(model, examples, replace(warm, pace=replace(warm.pace, **rates)), tmp_path / "run")
    log = [line for line in lines if "loss" in line]
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert ("retriever.lexical_weight" in moved) == (scale > 0)
    assert any("query_encoder" in name for name in moved) == (tower > 0)
    assert log[-1]["lexical_weight"] == pytest.approx(model.state_dict()["retriever.lexical_weight"].item(), abs=scale)
    if scale > 0:
        assert log[-1]["loss"] < log[0]["loss"]


def test_a_learned_temperature_moves_at_the_same_rate(tiny_encoder, tiny_seq2seq, tmp_path):
    """At a tower's rate it had hardly moved."""
    model, examples = built(tiny_encoder, tiny_seq2seq)
    tower = model.retriever.query_encoder
    model = variant(model, retriever=Retriever(tower, tower, 0.1, "query", learn_temperature=True))
    warm = stage(TopKMarginal(), CopyEvidence(), epochs=5)
    pace = replace(warm.pace, generator_learning_rate=0.0, retriever_learning_rate=0.0, scale_learning_rate=0.05)
    log = [line for line in run(model, examples, replace(warm, pace=pace), tmp_path / "run") if "loss" in line]
    assert abs(float(model.retriever.log_temperature.detach()) - math.log(0.1)) > 0.05
    assert log[-1]["temperature"] == pytest.approx(float(model.retriever.temperature.detach()), rel=0.1)
    assert log[-1]["loss"] < log[0]["loss"]


def test_a_misled_query_searches_with_a_passages_meaning_and_words(tiny_encoder, tiny_seq2seq):
    model, examples = build(tiny_encoder, tiny_seq2seq, trained="none")
    model = variant(model, search=UNRELATED)
    found = model.retrieve(examples, 6)
    rows = choose_unrelated_rows(examples, model.own_rows(examples), len(model.base))
    texts = [model.task.passage_text(passage) for passage in model.base]
    tower = model.retriever.passage_encoder
    vectors = model.retriever.as_queries(tower.embed([texts[row] for row in rows.tolist()]))
    score = vectors @ tower.embed(texts).T
    present = found.rows >= 0
    unnormalised = score.gather(1, found.rows.clamp(min=0)) - found.scores.log_prior
    for line, there in zip(unnormalised, present, strict=True):  # equal up to log Z
        torch.testing.assert_close(line[there], line[there][:1].expand(int(there.sum())), rtol=1e-4, atol=1e-3)


def test_words_do_not_hide_that_an_index_is_stale(tiny_encoder, tiny_seq2seq):
    """They never move, and are longer than what does: of their cosine nothing would be seen."""
    model, examples = build(tiny_encoder, tiny_seq2seq)
    plain, _ = built(tiny_encoder, tiny_seq2seq)
    rows = torch.arange(len(model.base))
    for one in (model, plain):
        disturb(one, 0.05)
    assert measure_drift(plain, rows) > 1e-3
    assert measure_drift(model, rows) == pytest.approx(measure_drift(plain, rows), rel=1e-4)
    probe = Probe(rows, tuple(examples), 2)
    assert measure_staleness(model, probe).cosine_drift == pytest.approx(measure_drift(plain, rows), rel=1e-4)


def test_words_do_not_hide_that_an_index_is_damaged(tiny_encoder, tiny_seq2seq):
    """The numbers of the model are zeroed, beside words 30 times as long; then the words are."""
    model, _ = build(tiny_encoder, tiny_seq2seq)
    lexical = model.retriever.passage_encoder.lexical
    assert lexical is not None
    model.retriever.passage_encoder.lexical = lambda texts: 30 * lexical(texts)
    model.retriever.passage_encoder.lexical.dimension = DIMENSION
    width, rows = model.retriever.passage_encoder.semantic_dimension, torch.arange(len(model.base))
    right = model.embed_rows(rows)
    for wrong in (slice(0, width), slice(width, None)):
        damaged = right.clone()
        damaged[:, wrong] = 0
        model.require_movable_index().replace(rows, damaged, "damaged")
        assert "is not the embedding of its passage" in (describe_index_fault(model) or "")
    model.require_movable_index().replace(rows, right, "right")
    assert describe_index_fault(model) is None


def test_a_hybrid_model_is_saved_and_loaded(tiny_encoder, tiny_seq2seq, tmp_path):
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model.save(tmp_path)
    again = RagModel.load(tmp_path, model.task, model.base, str(tiny_seq2seq)).eval()
    one, other = (found.retrieve_all(examples, with_posterior=True).scores for found in (model, again))
    assert again.has_index
    assert torch.equal(one.log_prior, other.log_prior)
    assert one.log_posterior is not None
    assert other.log_posterior is not None
    assert torch.equal(one.log_posterior, other.log_posterior)
