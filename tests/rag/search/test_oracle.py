"""The oracle: the one search that is told the target; what it permits, and that no other ever sees a target."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.rag.variants import variant

from retrograd.data.examples import GroundedExample
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search.oracle import Oracle
from retrograd.rag.search_kinds import ORACLE, SEARCHES
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.support import AnswerSupport
from retrograd.types import Example, Passage, UserError

SENTENCES = [
    ("the @ cup @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ box @ holds # rain # .", "Content-Container(e2,e1)"),
    ("the @ rain @ caused the # flood # .", "Cause-Effect(e1,e2)"),
    ("the @ tea @ caused the # rain # .", "Cause-Effect(e1,e2)"),
    ("the @ box @ holds # tea # .", "Content-Container(e2,e1)"),
    ("the @ wheel @ of the # car # .", "Component-Whole(e1,e2)"),
]


@pytest.fixture
def model(tiny_encoder: Path, tiny_seq2seq: Path) -> RagModel:
    task = RelationExtraction.semeval("marked", "label only")
    base = KnowledgeBase.from_passages(
        Passage(str(i), task.verbalise(label), text) for i, (text, label) in enumerate(SENTENCES)
    )
    rng = torch.Generator().manual_seed(0)
    tower = Encoder.open(str(tiny_encoder))
    made = RagModel(Retriever(tower, tower, 0.1, "none"), Generator.open(str(tiny_seq2seq), rng), task, base)
    made.refresh_index()
    return made.eval()


@pytest.fixture
def examples(model: RagModel) -> list[Example]:
    return [Example(p.id, p.text, (p.title,)) for p in model.base]


def test_it_finds_the_nearest_of_what_supports_the_target_and_nothing_else(
    model: RagModel, examples: list[Example]
) -> None:
    nearest = model.retrieve_all(examples).scores.log_prior
    model = variant(model, search=ORACLE)
    found = model.retrieve(examples, 4)
    wanted = {0: {1, 4}, 1: {0, 4}, 2: {3}, 3: {2}, 4: {0, 1}}
    for b, rows in wanted.items():
        own = [row for row in found.rows[b].tolist() if row >= 0]
        assert set(own) == rows  # never the example itself
        assert own == sorted(own, key=lambda row: -float(nearest[b, row]))
        assert float(found.scores.log_prior[b].exp().sum()) == pytest.approx(1.0, abs=1e-5)
    assert model.retrieve(examples, 1).rows[0].tolist() == [found.rows[0, 0].item()]
    whole = model.retrieve_all(examples)
    assert [set(row[row >= 0].tolist()) for row in whole.rows[:5]] == list(wanted.values())
    at = whole.scores.log_prior.gather(1, found.rows.clamp(min=0)).masked_fill(found.rows < 0, -torch.inf)
    torch.testing.assert_close(at, found.scores.log_prior)


def test_an_example_that_nothing_supports_finds_its_neighbours(model: RagModel, examples: list[Example]) -> None:
    alone = [examples[5], replace(examples[0], targets=()), examples[0]]  # the only one of its relation; no target
    plain = model.retrieve(alone, 3)
    whole = model.retrieve_all(alone).scores.log_prior
    model = variant(model, search=ORACLE)
    found = model.retrieve(alone, 3)
    assert torch.equal(found.rows[:2], plain.rows[:2])
    torch.testing.assert_close(found.scores.log_prior[:2], plain.scores.log_prior[:2])
    torch.testing.assert_close(model.retrieve_all(alone).scores.log_prior[:2], whole[:2])


def test_the_target_reaches_retrieval_nowhere_else(model: RagModel, examples: list[Example]) -> None:
    """Every way to search, with all targets exchanged: only those that read them find anything else."""
    pytest.importorskip("bm25s")
    exchanged = [replace(one, targets=examples[(i + 2) % 6].targets) for i, one in enumerate(examples)]
    differs = {}
    for search in SEARCHES:
        way = variant(model, search=search)
        one, other = (way.retrieve(given, 2) for given in (examples, exchanged))
        all_rows = [way.retrieve_all(given).rows for given in (examples, exchanged)]
        same = torch.equal(one.rows, other.rows) and torch.equal(one.scores.log_prior, other.scores.log_prior)
        answers = [[p.rows for p in way.predict(given, 2)] for given in (examples, exchanged)]
        differs[search.name] = [not same, not torch.equal(*all_rows), answers[0] != answers[1]]
    assert differs == {search.name: [search.reads_target] * 3 for search in SEARCHES}


def test_gold_passages_count_before_the_words_of_any_acceptable_answer() -> None:
    texts = ["the cup holds tea", "the box holds rain", "tea came from the car", "rain in the wheel"]
    base = KnowledgeBase.from_passages(Passage(f"p{i}", "", text) for i, text in enumerate(texts))
    task = QuestionAnswering(evidence=AnswerSupport(most_share=1.0, question_overlap=0.0))
    oracle = Oracle(task, base, task.support(base))
    asked = [
        Example("word", "what is there ?", ("tea",)),
        Example("either", "what is there ?", ("flood", "box", "wheel")),
        GroundedExample("gold", "what is there ?", ("tea",), ("p3", "gone")),
        GroundedExample("gone", "what is there ?", ("tea",), ("gone",)),
        Example("none", "what is there ?", ("flood",)),
    ]
    hidden = torch.tensor([[0, -1], [-1, -1], [-1, -1], [-1, -1], [-1, -1]])
    assert [rows.tolist() for rows in oracle.rows(asked, hidden)] == [[2], [1, 3], [3], [0, 2], []]
    with pytest.raises(UserError, match=r"question answering.* does not have; set it to \"nearest\""):
        Oracle(task, base, None)
