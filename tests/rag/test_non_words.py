"""What retrievers read and is no word of it, which no search by words may look for."""

from __future__ import annotations

import pytest
import torch

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.inputs.lexical_projection import LexicalProjection, WordStatistics
from retrograd.rag.search.bm25 import index_words, words_of_query
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage

TEXTS = (
    "a kettle of tea",
    "searching relevant passages of a representation",
    "mask of a player",
    "a session of the SEP",
    "tea and kettle and sentence",
    "nothing at all",
)
BASE = KnowledgeBase.from_passages(Passage(str(i), "", text) for i, text in enumerate(TEXTS))
EXAMPLE = Example("1", "what does the [MASK] kettle hold ?", ("tea",))


@pytest.mark.parametrize("kind", [QuestionAnswering, GroundedDialogue])
def test_bm25_reads_no_instruction(kind: type[QuestionAnswering | GroundedDialogue]) -> None:
    pytest.importorskip("bm25s")
    plain = kind()
    told = kind(query_prefix="Represent this sentence for searching relevant passages: ", passage_prefix="passage: ")
    without, found = (index_words(task, BASE).search([words_of_query(task, EXAMPLE)], 5) for task in (plain, told))
    assert torch.equal(found.row, without.row)
    assert torch.equal(found.logit, without.logit)
    assert not torch.isin(torch.tensor([1, 2]), found.row).any()  # neither the instruction's words nor the mask


@pytest.mark.parametrize("kind", [QuestionAnswering, GroundedDialogue])
def test_hybrid_search_reads_query_and_target_without_what_parts_them(
    kind: type[QuestionAnswering | GroundedDialogue],
) -> None:
    task: Task = kind(query_prefix="sentence: ")
    h = LexicalProjection(WordStatistics.of(TEXTS), 4096, task.non_words)
    told, posterior, bare = h(
        [
            task.query_text(EXAMPLE),
            task.posterior_text(EXAMPLE, "tea"),
            "what does the kettle hold ? tea",
        ]
    )
    assert torch.equal(posterior, bare)
    about_the_mark = h([TEXTS[2], TEXTS[3]])
    mask, separator = (h([word])[0] @ about_the_mark[i] for i, word in enumerate(("mask", "sep")))
    assert mask > 0.1 < separator  # the words themselves are found
    assert torch.equal(told, h(["what does the kettle hold ?"])[0])
