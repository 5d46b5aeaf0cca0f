"""RagModel with tasks of free answers: retrieve, copy likelihood, all passages in one prompt, answers, scores."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from retrograd.data.examples import GroundedExample, Turn, dialogue_example
from retrograd.evaluation.evaluate import evaluate
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.rag.likelihood import CopySettings
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.support import AnswerSupport, OverlapSupport
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage

BASE = [
    Passage("a", "cup", "the cup holds tea"),
    Passage("b", "rain", "rain caused the flood"),
    Passage("c", "car", "the wheel is part of the car"),
    Passage("d", "box", "the box holds nothing"),
]
QUESTIONS: list[Example] = [
    GroundedExample("1", "what holds tea ?", ("cup", "the cup"), ("a",)),
    GroundedExample("2", "what caused the flood ?", ("rain",), ("b",)),
]
DIALOGUES: list[Example] = [
    dialogue_example(
        "1", [Turn("user", "who is it ?"), Turn("agent", "what ?"), Turn("user", "flood")], ("rain caused",)
    ),
    Example("2", "what holds tea ?", ("the cup holds",)),
]


@pytest.mark.parametrize(
    ("task", "examples", "rows"),
    [
        (QuestionAnswering(evidence=AnswerSupport(most_share=0.5)), QUESTIONS, [0, 1]),
        (GroundedDialogue(evidence=OverlapSupport(most_share=0.5)), DIALOGUES, [1, 0]),
    ],
    ids=["questions", "dialogues"],
)
def test_a_model_of_free_answers(
    tiny_encoder: Path, tiny_seq2seq: Path, task: Task, examples: list[Example], rows: list[int]
) -> None:
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(tiny_encoder))
    retriever, posterior = Retriever(tower, tower, 0.1, "query"), Retriever(tower, tower, 0.1, "query")
    generator = Generator.open(str(tiny_seq2seq), rng, None, GeneratorOptions(max_input_tokens=64, max_target_tokens=4))
    model = RagModel(retriever, generator, task, KnowledgeBase.from_passages(BASE), posterior)
    model.eval()
    model.refresh_index()
    candidates = model.retrieve_all(examples, with_posterior=True)
    assert candidates.scores.log_prior.logsumexp(-1).abs().max() < 1e-5
    supports = model.supports(examples, candidates.rows)
    assert [found[mask].tolist() for found, mask in zip(candidates.rows, supports, strict=True)] == [[r] for r in rows]
    copied = model.copy_likelihood(examples, candidates, CopySettings()).at(torch.arange(4).expand(2, -1))
    assert torch.equal(candidates.rows.gather(1, copied.argmax(-1, keepdim=True)).squeeze(-1), torch.tensor(rows))
    likelihood = model.likelihood(examples, candidates)
    assert likelihood.together(torch.arange(2).expand(2, -1)).isfinite().all()
    assert likelihood.at(torch.arange(4).expand(2, -1)).isfinite().all()
    answers = [one.answer for one in model.predict(examples, k=2)]
    assert task.primary_metric in task.score(examples, answers)
    assert task.primary_metric in evaluate(model, examples, k=2).answers
