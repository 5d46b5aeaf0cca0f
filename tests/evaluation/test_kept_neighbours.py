"""Which of the kept neighbours support a target: of examples that have one, whatever else is in their batch."""

from __future__ import annotations

from pathlib import Path

import torch

from retrograd.evaluation.kept_neighbours import find_neighbours
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.support import AnswerSupport
from retrograd.types import Example, Passage

BASE = [Passage("a", "cup", "the cup holds tea"), Passage("b", "rain", "rain caused the flood")]


def test_an_example_without_a_target_leaves_the_others_their_support(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(tiny_encoder))
    generator = Generator.open(str(tiny_seq2seq), rng, None, GeneratorOptions(max_input_tokens=64, max_target_tokens=4))
    task = QuestionAnswering(evidence=AnswerSupport(most_share=0.5))
    model = RagModel(Retriever(tower, tower, 0.1, "query"), generator, task, KnowledgeBase.from_passages(BASE))
    model.refresh_index()
    examples = [Example("1", "what holds tea ?", ("cup",)), Example("2", "what caused the flood ?", ())]
    first, second = find_neighbours(model, examples)
    assert dict(zip(first.rows, first.supports, strict=True)) == {0: True, 1: False}
    assert second.supports == ()
    (alone,) = find_neighbours(model, examples[1:])
    assert (alone.rows, alone.supports) == (second.rows, ())
