"""The generator's likelihood of candidates, against one prompt at a time."""

from __future__ import annotations

from pathlib import Path

import torch

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.rag.candidates import NULL_ROW
from retrograd.rag.likelihood import GeneratorLikelihood
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage

PASSAGES = [
    Passage("0", "", "the cup holds tea"),
    Passage("1", "", "rain caused flood"),
    Passage("2", "", "wheel of car"),
]
EXAMPLES = [
    Example("a", "what holds tea ?", ("the cup",)),
    Example("b", "what caused flood ?", ("rain from a box in it",)),
]
ROWS = torch.tensor([[2, 0, -1, 1], [1, NULL_ROW, 2, -1]])
COLUMN = torch.tensor([[1, 3, 0, -1], [2, 0, 1, 3]])


def bind(folder: Path) -> tuple[GeneratorLikelihood, Generator]:
    generator = Generator.open(str(folder), torch.Generator().manual_seed(0)).eval()
    base = KnowledgeBase.from_passages(PASSAGES)
    return GeneratorLikelihood(generator, QuestionAnswering(), base, EXAMPLES, ROWS), generator


def one_by_one(generator: Generator) -> torch.Tensor:
    """Score every pair by itself: -inf for padding, the prompt without passages for the null passage."""
    value = torch.full(COLUMN.shape, -torch.inf)
    for b, example in enumerate(EXAMPLES):
        for m, column in enumerate(COLUMN[b].tolist()):
            row = int(ROWS[b, column]) if column >= 0 else -1
            if row != -1:
                prompt = QuestionAnswering().prompt(example, [PASSAGES[row]] if row >= 0 else [])
                value[b, m] = generator.log_likelihood([prompt], [example.target])[0]
    return value


@torch.no_grad()
def test_a_column_is_the_sum_over_the_tokens_of_its_own_pair(tiny_seq2seq: Path) -> None:
    bound, generator = bind(tiny_seq2seq)
    expected = one_by_one(generator)
    assert len(expected.unique()) == 7  # six pairs and -inf: no two can be taken for each other
    torch.testing.assert_close(bound.at(COLUMN), expected)


@torch.no_grad()
def test_tokens_of_a_column_sum_to_it_and_end_with_the_end_of_sequence(tiny_seq2seq: Path) -> None:
    bound, generator = bind(tiny_seq2seq)
    tokens = bound.tokens_at(COLUMN)
    torch.testing.assert_close(tokens.value.sum(dim=-1), one_by_one(generator))
    lengths = [len(example.target.split()) + 1 for example in EXAMPLES]  # one token a word, and the end
    assert tokens.present.sum(dim=-1).tolist() == lengths
