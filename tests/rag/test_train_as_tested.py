"""What training saw of a pair is what answering reports of it: one log-likelihood for every objective and reading.

Training scores pairs in one padded pass; answering runs prefix trees, or rows with caches, over prompts in other
batches. In double precision they agree to 1e-9, in single precision within the rounding of the sums between them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.test_open_objectives import BASE, EXAMPLES, seeded
from tests.tolerances import rounding
from torch import Tensor

import retrograd.models.constrained.tree_decoding as tree_decoding
from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.experiment import Experiment
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.objectives import (
    OBJECTIVES,
    CandidateScores,
    Distillation,
    FrozenRetriever,
    Objective,
    Reads,
    RelaxedTopK,
    ScoreFunction,
    StochasticTopK,
    TopKMarginal,
    Vimco,
    WakeSleep,
)
from retrograd.rag.answers.answering import (
    Answering,
    Reading,
    choice_scores,
    choose_answers,
    read_alone,
    read_candidates,
)
from retrograd.rag.answers.decision import Decision
from retrograd.rag.candidates import Candidates
from retrograd.rag.likelihood import GeneratorLikelihood
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example

CHOICES = ("the cup", "rain", "the wheel of car", "the cup holds tea", "")
ROWS = torch.tensor([[0, 2, 3], [1, 0, -1]])
LOGITS = torch.tensor([[0.4, -0.3, 1.1], [0.2, 0.9, -math.inf]], dtype=torch.float64)
TERMS, DEPTH = 64, 40
"""At most 64 words, tokens or hidden states in a sum; both ways lie 20 sums and products deep."""

OTHERS: list[Objective] = [
    TopKMarginal(form="token"),
    TopKMarginal(normaliser="candidates"),
    FrozenRetriever(form="together"),
    Distillation(target="loop_kl_target_prior"),
    Distillation(reader="marginal"),
    StochasticTopK(noise=0.0),
    StochasticTopK(noise=0.0, relaxation="softsort", slots=3),
    RelaxedTopK(slots=3, operator="n3"),
    RelaxedTopK(operator="hard"),
    RelaxedTopK(perplexity=1.5),
]
DRAWING = (ScoreFunction, StochasticTopK, Vimco, WakeSleep)
"""They see a sample of the pairs; StochasticTopK is compared without its noise."""
OBJECTIVES_SEEN = [*(kind() for kind in OBJECTIVES if kind not in DRAWING), *OTHERS]


class Closed(QuestionAnswering):
    """Questions with a closed set of answers, of other tokens in number."""

    def choices_for(self, example: Example) -> tuple[str, ...]:
        return CHOICES


TASK, KNOWLEDGE = Closed(), KnowledgeBase.from_passages(BASE)


def opened(folder: Path, dtype: torch.dtype, fusion: bool = False, budget: int = 0) -> Generator:
    options = GeneratorOptions(64, 6, fusion=fusion, token_budget=budget)
    generator = Generator.open(str(folder), torch.Generator(), None, options).eval()
    generator.to(dtype)
    return generator


def candidates(which: slice, dtype: torch.dtype) -> Candidates:
    log_prior = LOGITS[which].log_softmax(dim=-1).to(dtype)
    return Candidates(ROWS[which], CandidateScores(log_prior, log_prior.clone()))


def trained(generator: Generator, objective: Objective, b: int, target: str, dtype: torch.dtype) -> float:
    """Return the log-likelihood of one pair, alone in its batch, as the objective's loss has it."""
    own = candidates(slice(b, b + 1), dtype)
    example = replace(EXAMPLES[b], targets=(target,))
    likelihood = GeneratorLikelihood(generator, TASK, KNOWLEDGE, [example], own.rows, lambda one: [0])
    with torch.no_grad():
        estimate = objective(own.scores, likelihood, seeded())
    return estimate.diagnostics["log_marginal"].item()


def answering_of(objective: Objective, fusion: bool = False) -> Answering:
    sections = {"retriever": {"posterior": True}, "generator": {"fusion": fusion}}
    return derive_model_settings(Experiment().replace(**sections, objective=objective)).answering


def reading_of(generator: Generator, objective: Objective, answering: Answering, dtype: torch.dtype) -> Reading:
    if objective.reads == Reads.NOTHING:
        return read_alone(len(EXAMPLES), answering.manner)
    every = candidates(slice(None), dtype)
    likelihood = GeneratorLikelihood(generator, TASK, KNOWLEDGE, EXAMPLES, every.rows)
    return read_candidates(every, answering, likelihood.soft_slots)


def check(generator: Generator, objective: Objective, dtype: torch.dtype, fusion: bool = False) -> None:
    """Compare the shares of all choices, which take every likelihood but for a constant, and then a written answer."""
    answering = answering_of(objective, fusion)
    with torch.no_grad():
        reading = reading_of(generator, objective, answering, dtype)
        found = choice_scores(generator, TASK, KNOWLEDGE, EXAMPLES, reading, "sequence", None)
        written_manner = replace(answering.manner, answers="written", beams=2)
        reading = reading_of(generator, objective, replace(answering, manner=written_manner), dtype)
        written = choose_answers(generator, TASK, KNOWLEDGE, EXAMPLES, reading, "sequence", Decision(), None)
    assert found is not None
    for b, (own, answer) in enumerate(zip(found, written, strict=True)):
        values = [trained(generator, objective, b, choice, dtype) for choice in CHOICES]
        close(own.log_probability, torch.tensor(values, dtype=torch.float64).log_softmax(dim=-1), values, dtype)
        value = trained(generator, objective, b, answer.answer, dtype)
        found_value = torch.tensor([answer.log_probability], dtype=torch.float64)
        close(found_value, torch.tensor([value], dtype=torch.float64), [value], dtype)


def close(found: Tensor, expected: Tensor, values: Sequence[float], dtype: torch.dtype) -> None:
    absolute = 1e-9 if dtype == torch.float64 else 2 * max(map(abs, values)) * rounding(TERMS, DEPTH)
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=absolute)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("objective", OBJECTIVES_SEEN, ids=repr)
@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_causal"])
def test_training_and_answering_see_one_likelihood(
    kind: str, objective: Objective, dtype: torch.dtype, request: pytest.FixtureRequest
) -> None:
    check(opened(request.getfixturevalue(kind), dtype), objective, dtype)


@pytest.mark.parametrize("objective", [TopKMarginal(), TopKMarginal(form="token"), RelaxedTopK()], ids=repr)
@pytest.mark.parametrize("kind", ["tiny_seq2seq", "tiny_bart", "tiny_causal"])
@pytest.mark.parametrize("budget", [1, 100_000])
def test_whatever_the_batch_and_the_cache(
    budget: int, kind: str, objective: Objective, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt a pass or all of them, without trees: longest prefixes over the cached keys of a prompt, or anew."""
    monkeypatch.setattr(tree_decoding, "reads_trees", lambda model: False)
    check(opened(request.getfixturevalue(kind), torch.float64, budget=budget), objective, torch.float64)


@pytest.mark.parametrize("objective", [FrozenRetriever(form="together"), Distillation(reader="together")], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_fused_prompts_too(objective: Objective, dtype: torch.dtype, tiny_seq2seq: Path) -> None:
    check(opened(tiny_seq2seq, dtype, fusion=True), objective, dtype, fusion=True)


@pytest.mark.parametrize("kind", [kind for kind in DRAWING if kind is not StochasticTopK])
def test_objectives_that_draw_pairs_answer_like_the_marginal_that_they_estimate(kind: type[Objective]) -> None:
    assert answering_of(kind()) == answering_of(TopKMarginal())
