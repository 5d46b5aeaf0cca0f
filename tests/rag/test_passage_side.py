"""A posterior with passage embeddings of its own: probabilities and gradients by hand, disk, age, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.test_rag_model import build as built
from tests.rag.variants import variant
from tests.training.test_loop import run, stage
from torch import Tensor

from retrograd.models.encoder import Encoder
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.models.retriever import Retriever, TrainedTowers
from retrograd.objectives import JointStochasticApproximation, TopKMarginal
from retrograd.rag.candidates import NULL_ROW
from retrograd.rag.passage_side import PassageSide
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.rag.search.substitution import choose_unrelated_rows
from retrograd.rag.search_kinds import UNRELATED
from retrograd.rag.staleness import Probe, describe_index_fault, measure_drift, measure_staleness
from retrograd.training.refresh.background import IndexWorker
from retrograd.types import Example, UserError

Apart = tuple[RagModel, list[Example]]
POSTERIOR = RetrievalOptions(posterior=True)


def build(encoder: Path, other: Path, generator: Path, trained: TrainedTowers = "query", words: int = 0) -> Apart:
    """`tests.rag.test_rag_model.build`, with another model in the posterior's place, for queries and for passages."""
    model, examples = built(encoder, generator, trained=trained)
    posterior = Retriever(Encoder.open(str(other)), Encoder.open(str(other)), 0.2, trained)
    model = model.with_posterior(posterior)
    if words:
        texts = [model.task.passage_text(passage) for passage in model.base]
        lexical = LexicalProjection(WordStatistics.of(texts), words)
        for retriever, weight in ((model.retriever, 0.4), (posterior, 0.9)):
            retriever.query_encoder.lexical = retriever.passage_encoder.lexical = lexical
            retriever.lexical_weight = torch.nn.Parameter(torch.tensor(weight))
    model.eval()
    model.refresh_index()
    return model, examples


@pytest.fixture(params=["query", "both"])
def apart(request: pytest.FixtureRequest, tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path) -> Apart:
    return build(tiny_encoder, deep_encoder, tiny_seq2seq, request.param)


def queries(model: RagModel, examples: list[Example], posterior: bool) -> Tensor:
    who = model.posterior if posterior else model.retriever
    assert who is not None
    read = model.task.posterior_text if posterior else lambda example, _: model.task.query_text(example)
    return who.queries([read(example, example.target) for example in examples])


def logits(model: RagModel, examples: list[Example], posterior: bool) -> Tensor:
    """Of the whole base; an example's own passage is hidden."""
    who = model.posterior if posterior else model.retriever
    assert who is not None
    passages = who.passages([model.task.passage_text(passage) for passage in model.base])
    logit = queries(model, examples, posterior) @ passages.T
    return logit.masked_fill(torch.eye(*logit.shape, dtype=torch.bool), -torch.inf)


def by_hand(model: RagModel, examples: list[Example], posterior: bool) -> Tensor:
    return logits(model, examples, posterior).log_softmax(-1)


@pytest.mark.parametrize("words", [0, 8])
def test_each_retriever_compares_with_its_own_passages(
    words: int, tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, examples = build(tiny_encoder, deep_encoder, tiny_seq2seq, words=words)
    prior, posterior = (by_hand(model, examples, which).detach() for which in (False, True))
    assert model.index.dimension == 2 * (16 + words)
    everything = model.retrieve_all(examples, with_posterior=True)
    here = everything.rows >= 0
    torch.testing.assert_close(everything.scores.log_prior[here], prior[here])
    assert everything.scores.log_posterior is not None
    torch.testing.assert_close(everything.scores.log_posterior[here], posterior[here])
    found = model.retrieve(examples, 2, POSTERIOR)
    for own, one, other in zip(found.rows.tolist(), prior, posterior, strict=True):
        assert {row for row in own if row >= 0} == {*one.topk(2).indices.tolist(), *other.topk(2).indices.tolist()}
    present, at = found.rows >= 0, found.rows.clamp(min=0)
    torch.testing.assert_close(found.scores.log_prior[present], prior.gather(1, at)[present])
    assert found.scores.log_posterior is not None
    torch.testing.assert_close(found.scores.log_posterior[present], posterior.gather(1, at)[present])


def test_each_loss_teaches_its_own_towers(apart: Apart) -> None:
    """With all passages as candidates, the gradient is that of the probabilities by hand, and the other's is none."""
    model, examples = apart
    assert model.posterior is not None
    for posterior in (False, True):
        own, other = (model.posterior, model.retriever) if posterior else (model.retriever, model.posterior)
        found = model.retrieve(examples, len(model.base), POSTERIOR)
        scores = found.scores.log_posterior if posterior else found.scores.log_prior
        assert scores is not None
        weights = own.trained_parameters()
        ours = torch.autograd.grad(scores[:, 0].sum(), weights, allow_unused=True)
        expected = by_hand(model, examples, posterior).gather(1, found.rows[:, :1]).sum()
        theirs = torch.autograd.grad(expected, weights, allow_unused=True)
        for one, wanted in zip(ours, theirs, strict=True):
            torch.testing.assert_close(one, wanted, atol=2e-4, rtol=1e-3)
        assert any(one is not None and one.abs().max() > 0 for one in ours)
        found = model.retrieve(examples, 2, POSTERIOR)
        scores = found.scores.log_posterior if posterior else found.scores.log_prior
        assert scores is not None
        stray = torch.autograd.grad(scores[found.rows >= 0].sum(), other.trained_parameters(), allow_unused=True)
        assert all(one is None or not one.any() for one in stray)


def test_a_prior_without_its_posterior_leaves_that_alone(
    tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    """Its passages are not even encoded: a gradient of zeros would have AdamW decay the weights."""
    model, examples = build(tiny_encoder, deep_encoder, tiny_seq2seq, "both")
    assert model.posterior is not None
    read: list[int] = []
    watch = model.posterior.passage_encoder.register_forward_pre_hook(lambda _, texts: read.append(len(texts[0])))
    model = variant(model, null_passage=True)
    for found in (model.retrieve(examples, 2), model.retrieve_all(examples)):
        found.scores.log_prior.exp()[:, 0].sum().backward()
    assert read == []
    watch.remove()
    assert all(weight.grad is None for weight in model.posterior.parameters())
    before = {name: value.clone() for name, value in model.posterior.state_dict().items()}
    one = stage(TopKMarginal())
    run(model, examples, replace(one, pace=replace(one.pace, weight_decay=0.1)), tmp_path)
    after = model.posterior.state_dict()
    assert [name for name, value in before.items() if not torch.equal(value, after[name])] == []


def test_candidates_are_embedded_without_dropout_and_training_goes_on(apart: Apart) -> None:
    model, examples = apart
    model.train()
    model.retrieve(examples, 2, POSTERIOR)
    assert [tower.training for tower in model.passage_side.towers] == [True, True]


def test_the_null_passage_competes_in_both(apart: Apart) -> None:
    model, examples = apart
    model = variant(model, null_passage=True)
    found = model.retrieve(examples, len(model.base), POSTERIOR)
    assert (found.rows[:, -1] == NULL_ROW).all()
    for posterior, scores in ((False, found.scores.log_prior), (True, found.scores.log_posterior)):
        who = model.posterior if posterior else model.retriever
        assert scores is not None
        assert who is not None
        logit = logits(model, examples, posterior)
        null = queries(model, examples, posterior) @ who.no_passage("(no passage)")
        expected = torch.cat([logit, null.unsqueeze(-1)], dim=-1).log_softmax(-1)[:, -1]
        torch.testing.assert_close(scores[:, -1], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("words", [0, 8])
def test_a_random_search_compares_as_the_prior_does(
    words: int, tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path
) -> None:
    model, examples = build(tiny_encoder, deep_encoder, tiny_seq2seq, "none", words)
    model = variant(model, search=UNRELATED)
    stood_in = choose_unrelated_rows(examples, model.own_rows(examples), len(model.base))
    texts = [model.task.passage_text(passage) for passage in model.base]
    vectors = model.retriever.passage_encoder.embed(texts)
    logit = model.retriever.as_queries(vectors[stood_in]) @ vectors.T
    for b, row in enumerate(stood_in.tolist()):
        logit[b, [b, row]] = -torch.inf
    found = model.retrieve(examples, 2)
    expected = logit.log_softmax(-1).gather(1, found.rows)
    torch.testing.assert_close(found.scores.log_prior, expected, atol=1e-4, rtol=1e-4)


def test_parts_of_a_row_are_where_they_were_placed(apart: Apart) -> None:
    model, _ = apart
    side = model.passage_side
    query = torch.randn(3, 16)
    prior, posterior = side.pad_to_row(query, "prior"), side.pad_to_row(query, "posterior")
    assert torch.equal(side.part(prior, "prior"), query)
    assert torch.equal(side.part(posterior, "posterior"), query)
    assert not side.part(prior, "posterior").any()
    assert not side.part(posterior, "prior").any()
    assert torch.equal(torch.cat(side.parts(prior), dim=-1), prior)
    shared = PassageSide.of(model.retriever, None)
    assert shared.pad_to_row(query, "posterior") is query
    assert torch.equal(shared.part(query, "posterior"), query)


def test_it_is_saved_and_opened(apart: Apart, tmp_path: Path) -> None:
    model, examples = apart
    model.save(tmp_path)
    again = RagModel.load(tmp_path, model.task, model.base, "")
    assert again.has_index
    assert len(again.passage_side.towers) == 2
    one, other = (each.retrieve(examples, 3, POSTERIOR) for each in (model, again))
    assert torch.equal(one.rows, other.rows)
    torch.testing.assert_close(one.scores.log_posterior, other.scores.log_posterior)


@pytest.mark.parametrize("words", [0, 8])
def test_its_passages_grow_stale_by_themselves(
    words: int, tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path
) -> None:
    """The drift is that of the tower that moved, in the numbers that move, whatever the other does."""
    model, examples = build(tiny_encoder, deep_encoder, tiny_seq2seq, words=words)
    assert model.posterior is not None
    rows = torch.arange(len(model.base))
    stored = model.index.vectors(rows)[:, -16 - words : -words or None]
    probe = Probe(torch.arange(len(model.base)), tuple(examples), 2)
    assert model.index_is_current()
    assert measure_staleness(model, probe).cosine_drift == 0
    with torch.no_grad():
        for weight in model.posterior.passage_encoder.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    assert not model.index_is_current()
    assert describe_index_fault(model) is not None
    fresh = model.embed_rows(rows)[:, -16 - words : -words or None]
    drift = (1 - torch.cosine_similarity(stored, fresh)).mean().item()
    assert measure_staleness(model, probe).cosine_drift == pytest.approx(drift, rel=1e-3)
    assert measure_drift(model, rows) == pytest.approx(drift, rel=1e-3)
    model.refresh_rows(torch.arange(len(model.base)))
    assert measure_staleness(model, probe).cosine_drift < 1e-10
    model.refresh_index()
    assert describe_index_fault(model) is None


@pytest.mark.parametrize("trained", ["query", "both"])
def test_training_moves_it_where_passages_learn(
    trained: TrainedTowers, tiny_encoder: Path, deep_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, examples = build(tiny_encoder, deep_encoder, tiny_seq2seq, trained)
    assert model.posterior is not None
    before = {name: value.clone() for name, value in model.posterior.state_dict().items()}
    run(model, examples, stage(JointStochasticApproximation()), tmp_path)
    after = model.posterior.state_dict()
    moved = {name.split(".")[0] for name, value in before.items() if not torch.equal(value, after[name])}
    assert moved == ({"query_encoder", "passage_encoder"} if trained == "both" else {"query_encoder"})


def test_another_process_does_not_embed_for_two(apart: Apart, tmp_path: Path) -> None:
    model, _ = apart
    worker = IndexWorker(model, tmp_path)
    try:
        with pytest.raises(UserError, match=r"retriever\.posterior_passages = \"shared\""):
            worker.embed_snapshot(model)
    finally:
        worker.close()
