"""Every objective with the real generator on open answers: batches, gradients, targets of one token, both families."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.variants import variant
from tests.tolerances import TINY_DEPTH, TINY_TERMS, assert_same_gradients, rounding
from torch import Tensor

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.objectives import (
    OBJECTIVES,
    CandidateScores,
    Distillation,
    FrozenRetriever,
    JointStochasticApproximation,
    NoRetrieval,
    Objective,
    RelaxedTopK,
    ScoreFunction,
    StochasticTopK,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)
from retrograd.rag.answers.answering import Answering
from retrograd.rag.answers.manner import Manner
from retrograd.rag.answers.written import write_answers
from retrograd.rag.candidates import Candidates
from retrograd.rag.likelihood import GeneratorLikelihood
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage

BASE = [
    Passage("a", "cup", "the cup holds tea"),
    Passage("b", "rain", "rain caused the flood in the box"),
    Passage("c", "car", "the wheel is part of the car"),
    Passage("d", "", "the box holds nothing"),
]
EXAMPLES = [Example("1", "what holds tea ?", ("the cup",)), Example("2", "what caused the flood ?", ("rain",))]
KINDS = ["tiny_seq2seq", "tiny_causal"]
EXACT: list[Objective] = [
    TopKMarginal(),
    TopKMarginal(form="token"),
    JointStochasticApproximation(kept_mass=1.0),
    Variational(kept_mass=1.0),
    StochasticTopK(noise=0.0),
    RelaxedTopK(),
    Distillation(),
    Distillation(target="emdr2", reader="marginal", kept_mass=1.0),
    Distillation(target="loop_kl_target_prior"),
    Distillation(target="replug_kl_prior_target", reader="none"),
    FrozenRetriever(),
    FrozenRetriever(form="together"),
    NoRetrieval(),
]
"""What draws nothing."""
DRAWING: list[Objective] = [
    JointStochasticApproximation(sampler="metropolis", draws=4, kept_mass=1.0),
    Variational(form="published"),
    WakeSleep(),
    Vimco(),
    ScoreFunction(),
    StochasticTopK(),
]


def build(encoder: Path, generator: Path, fusion: bool = False) -> RagModel:
    tower = Encoder.open(str(encoder))
    posterior = Retriever(Encoder.open(str(encoder)), tower, 0.1, "query")
    opened = Generator.open(str(generator), torch.Generator(), None, GeneratorOptions(64, 6, fusion=fusion))
    prior = Retriever(tower, tower, 0.1, "query")
    model = RagModel(prior, opened, QuestionAnswering(), KnowledgeBase.from_passages(BASE), posterior)
    model.eval()
    model.refresh_index()
    return model


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest, tiny_encoder: Path) -> RagModel:
    return build(tiny_encoder, request.getfixturevalue(request.param))


@pytest.fixture
def fused(tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    return build(tiny_encoder, tiny_seq2seq, fusion=True)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def loss(model: RagModel, objective: Objective, examples: list[Example], rng: torch.Generator | None = None) -> Tensor:
    candidates = model.retrieve(examples, 3, RetrievalOptions(posterior=objective.needs_posterior))
    return objective(candidates.scores, model.likelihood(examples, candidates), rng or seeded()).loss


def gradients(model: RagModel, value: Tensor) -> dict[str, Tensor]:
    model.zero_grad(set_to_none=True)
    value.backward()
    return {name: one.grad for name, one in model.named_parameters() if one.grad is not None}


def size(model: RagModel, part: str) -> float:
    return math.sqrt(sum(float((w.grad**2).sum()) for w in model.parts()[part] if w.grad is not None))


def check_batches(model: RagModel, objective: Objective) -> None:
    both = loss(model, objective, EXAMPLES)
    whole = gradients(model, both)
    parts, rng = [], seeded()
    for example in EXAMPLES:
        one = loss(model, objective, [example], rng)
        parts.append((one.detach(), gradients(model, one)))
    mean = (parts[0][0] + parts[1][0]) / 2
    atol = rounding(TINY_TERMS, TINY_DEPTH) * max(abs(float(value)) for value, _ in parts)
    torch.testing.assert_close(both.detach(), mean, rtol=0, atol=atol)
    means = [sum(part.get(name, torch.zeros_like(value)) for _, part in parts) / 2 for name, value in whole.items()]
    assert_same_gradients([*whole.values()], means, TINY_TERMS, TINY_DEPTH)


@pytest.mark.parametrize("objective", [*EXACT, *DRAWING], ids=repr)
def test_a_batch_of_two_is_two_batches_of_one(model: RagModel, objective: Objective) -> None:
    """Prompts, targets and passages of different lengths: padding must be absence all the way down. One stream of
    chance serves a batch however it is cut.
    """
    check_batches(model, objective)


@pytest.mark.parametrize("objective", [FrozenRetriever(form="together"), Distillation(target="loop_kl_target_prior")])
def test_a_batch_of_two_is_two_batches_of_one_with_fusion(fused: RagModel, objective: Objective) -> None:
    check_batches(fused, objective)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_objective_takes_a_step(model: RagModel, kind: type[Objective]) -> None:
    objective = kind()
    before = {name: one.detach().clone() for name, one in model.named_parameters()}
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-2)
    value = loss(model, objective, EXAMPLES)
    assert value.isfinite()
    value.backward()
    assert all(one.grad.isfinite().all() for one in model.parameters() if one.grad is not None)
    assert size(model, "generator") > 0
    assert (size(model, "prior") > 0) == objective.trains_retriever
    assert (size(model, "posterior") > 0) == objective.needs_posterior
    optimiser.step()
    moved = {name for name, one in model.named_parameters() if not torch.equal(one, before[name])}
    assert any(name.startswith("generator.") for name in moved)
    assert any(name.startswith("retriever.") for name in moved) == objective.trains_retriever


def given(model: RagModel, target: str) -> tuple[Tensor, GeneratorLikelihood]:
    """Prior logits of all passages, as leaves, and the likelihood of one question with that target."""
    logits = torch.tensor([[0.3, -0.2, 0.1, 0.0]], requires_grad=True)
    rows = torch.arange(4).unsqueeze(0)
    candidates = Candidates(rows, CandidateScores(logits.detach().log_softmax(-1)))
    return logits, model.likelihood([replace(EXAMPLES[0], targets=(target,))], candidates)


@pytest.mark.parametrize("target", ["tea", ""])
@pytest.mark.parametrize("form", ["sequence", "token"])
def test_a_target_of_one_token_gives_the_prior_its_gradient(model: RagModel, form: str, target: str) -> None:
    """A word and the end, or the end alone: p - π for the sequence, by hand."""
    logits, likelihood = given(model, target)
    TopKMarginal(form=form)(CandidateScores(logits.log_softmax(-1)), likelihood, seeded()).loss.backward()
    prompts = [model.task.prompt(EXAMPLES[0], [passage]) for passage in BASE]
    with torch.no_grad():
        tokens = model.generator.token_log_likelihood(prompts, [target] * 4).value
        prior = logits.log_softmax(-1)[0]
        if form == "sequence":
            tokens = tokens.sum(-1, keepdim=True)
        responsibilities = (prior.unsqueeze(-1) + tokens).softmax(0)
        expected = (prior.exp().unsqueeze(-1) - responsibilities).sum(-1)
    assert expected.abs().max() > 1e-4
    torch.testing.assert_close(logits.grad[0], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("target", ["tea", ""])
@pytest.mark.parametrize("objective", [JointStochasticApproximation(kept_mass=1.0), Variational(kept_mass=1.0)])
def test_a_target_of_one_token_gives_both_retrievers_theirs(model: RagModel, objective: Objective, target: str) -> None:
    """By hand, over all passages. JSA: p - π and q - π. ELBO: p - q, and q ⊙ (f - E_q f), f = log q - log p - log L."""
    logits, likelihood = given(model, target)
    of_posterior = torch.tensor([[0.1, 0.4, -0.3, 0.2]], requires_grad=True)
    log_p, log_q = logits.log_softmax(-1), of_posterior.log_softmax(-1)
    objective(CandidateScores(log_p, log_posterior=log_q), likelihood, seeded()).loss.backward()
    with torch.no_grad():
        p, q = log_p.exp()[0], log_q.exp()[0]
        log_likelihood = likelihood.at(torch.arange(4).unsqueeze(0))[0]
        pi = (log_p[0] + log_likelihood).softmax(-1)
        f = log_q[0] - log_p[0] - log_likelihood
        jsa = isinstance(objective, JointStochasticApproximation)
        expected = (p - pi, q - pi) if jsa else (p - q, q * (f - (q * f).sum()))
    for leaf, wanted in zip((logits, of_posterior), expected, strict=True):
        assert wanted.abs().max() > 1e-4
        torch.testing.assert_close(leaf.grad[0], wanted, rtol=1e-3, atol=1e-5)


def test_together_is_fusion_where_the_generator_fuses(fused: RagModel) -> None:
    column = torch.tensor([[0, 1, 2]])
    _, likelihood = given(fused, "the cup")
    with torch.no_grad():
        found = likelihood.together(column)
        torch.testing.assert_close(likelihood.together(column.flip(1)), found)  # T5 attends to a set
        torch.testing.assert_close(likelihood.together(torch.tensor([[0, -1, 1, 2]])), found)
        torch.testing.assert_close(likelihood.together(column[:, :1]), likelihood.at(column[:, :1]).squeeze(-1))
        generator = fused.generator
        options = replace(generator.options, fusion=False)
        fused.generator = Generator(generator.model, generator.tokenizer, options).eval()
        assert (given(fused, "the cup")[1].together(column) - found).abs() > 1e-4


def test_fused_answers_are_the_generators_own(fused: RagModel) -> None:
    fused = variant(fused, answering=Answering(Manner(reading="fused", beams=2)))
    found = fused.predict(EXAMPLES, 3)
    for example, one in zip(EXAMPLES, found, strict=True):
        candidates = fused.retrieve([example], 3)
        passages = [fused.base[row] for row in candidates.rows[0].tolist()]
        likelihood = fused.likelihood([replace(example, targets=(one.answer,))], candidates)
        with torch.no_grad():
            log_p = likelihood.together(torch.tensor([[0, 1, 2]])).item()
        assert one.log_probability == pytest.approx(log_p, abs=1e-4)
        assert {passage.id for passage in passages} == set(one.passage_ids)


@pytest.mark.parametrize("marginal", ["thorough", "fast", "best"])
def test_a_model_answers_in_its_manner(model: RagModel, marginal: str) -> None:
    model = variant(model, answering=Answering(Manner(marginal=marginal, beams=2)))
    found = model.predict(EXAMPLES, 3)
    for example, one in zip(EXAMPLES, found, strict=True):
        candidates = model.retrieve([example], 3)
        prompts = [model.task.prompt(example, [model.base[row]]) for row in candidates.rows[0].tolist()]
        weight = candidates.scores.log_prior.detach().log_softmax(-1)
        (expected,) = write_answers(model.generator, prompts, torch.arange(3).unsqueeze(0), weight, marginal, 2)
        assert one.answer == expected.answer
        assert one.log_probability == pytest.approx(expected.log_probability, abs=1e-4)
