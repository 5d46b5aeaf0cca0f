"""The posterior's tower reads the target however long the query is: what has no room is the query's end."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.conftest import WORDS, word_tokenizer

from retrograd.data.examples import Turn, dialogue_example
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.inputs.control_tokens import ControlTokens
from retrograd.models.inputs.prompt_tokens import fit_texts
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, Prompt

MOST = 12
LONG = " ".join(["the cup holds tea in the rain and the wheel of the car is the box"] * 3)
TOKENIZER = word_tokenizer("[CLS] $A [SEP]")
texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=14).map(" ".join)


@dataclass(frozen=True)
class Case:
    """A task, and an example whose query alone is longer than the tower reads."""

    task: Task
    query: Example
    passage: str = "the cup holds tea ."

    def with_target(self, target: str) -> Example:
        if isinstance(self.task, GroundedDialogue):
            turns = [Turn("user", "alpha beta"), Turn("agent", "gamma"), Turn("user", self.query.query)]
            return dialogue_example("q", turns, (target,))
        return Example("q", self.query.query, (target,))


RELATIONS = RelationExtraction.semeval("marked", "labelled")
CASES = {
    "question": Case(QuestionAnswering(separator=" eta "), Example("q", LONG)),
    "question with an instruction": Case(
        QuestionAnswering(query_prefix="alpha ", separator=" eta "), Example("q", LONG)
    ),
    "dialogue": Case(GroundedDialogue(separator=" eta "), Example("q", LONG)),
    "relation": Case(RELATIONS, Example("q", f"the @ cup @ holds # tea # {LONG}"), "the @ cup @ holds # tea # ."),
}


def words(text: str) -> list[str]:
    return TOKENIZER.convert_ids_to_tokens(TOKENIZER(text, truncation=True, max_length=MOST)["input_ids"])[1:-1]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_target_of_a_long_query_reaches_the_tower(case: Case, tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    targets = ("delta", "kappa")
    tower, own = (Encoder.open(str(tiny_encoder), max_tokens=MOST) for _ in range(2))
    base = KnowledgeBase.from_passages(Passage(str(i), word, case.passage) for i, word in enumerate(WORDS[:4]))
    generator = Generator.open(str(tiny_seq2seq), torch.Generator().manual_seed(0))
    rag = RagModel(
        Retriever(tower, tower, 0.1, "query"), generator, case.task, base, Retriever(own, tower, 0.1, "query")
    ).eval()
    rag.refresh_index()
    examples = [case.with_target(target) for target in targets]
    read = fit_texts(
        ControlTokens(TOKENIZER), "", [case.task.posterior_text(one, one.target) for one in examples], MOST
    )
    assert all(words(text)[-1] == target for text, target in zip(read, targets, strict=True)), read
    with torch.no_grad():
        scores = rag.retrieve(examples, 4, RetrievalOptions(posterior=True)).scores
        vectors = own.embed([case.task.posterior_text(one, one.target) for one in examples], "query")
    torch.testing.assert_close(scores.log_prior[0], scores.log_prior[1])
    assert not torch.allclose(vectors[0], vectors[1])
    torch.testing.assert_close(vectors, own.embed(read, "query"))


@given(texts, texts, texts, texts, st.integers(3, 30))
def test_the_rest_goes_first_and_then_the_spare_part_and_never_more_than_must(
    before: str, spare: str, after: str, rest: str, most: int
) -> None:
    whole = Prompt(before + " ", spare, f" {after}", f" {rest}")
    read = TOKENIZER(fit_texts(ControlTokens(TOKENIZER), "", [whole], most)[0], truncation=True, max_length=most)[
        "input_ids"
    ]
    own = [TOKENIZER(part, add_special_tokens=False)["input_ids"] for part in (before, spare, after, rest)]
    room = most - 2
    fixed = len(own[0]) + len(own[2])
    kept = own[1][: max(room - fixed, 0)]
    expected = [*own[0], *kept, *own[2], *own[3]][:room]
    assert read[1:-1] == expected
    plain = f"{before} {spare} {after}"
    assert fit_texts(ControlTokens(TOKENIZER), "x ", [plain], 3) == [f"x {plain}"]


def test_a_text_that_fits_is_read_as_it_was() -> None:
    task = QuestionAnswering(query_prefix="find: ")
    text = task.posterior_text(Example("q", "what holds tea ?"), "the cup")
    assert text == "find: what holds tea ? [SEP] the cup"
    assert fit_texts(ControlTokens(TOKENIZER), "", [text], 64) == [text]
    dialogue = dialogue_example(
        "d", [Turn("user", "alpha"), Turn("agent", "beta"), Turn("user", "gamma ?")], ("delta",)
    )
    assert GroundedDialogue().posterior_text(dialogue, "delta") == "gamma ? [SEP] delta [SEP] beta alpha"
