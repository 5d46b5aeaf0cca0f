"""Compare the scores of the prior's ranking for open answers with ranks counted by hand."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from retrograd.data.examples import GroundedExample
from retrograd.evaluation.evaluate import evaluate
from retrograd.evaluation.open_retrieval import open_retrieval_scores
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.generator_settings import GeneratorOptions
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.text_index import has_answer
from retrograd.types import Example, Passage, UserError

TEXTS = ["the cup holds tea", "rain caused the flood", "the wheel is part of the car", "the box holds nothing", "tea"]
TEXTS += [f"number {i} {j}" for i in range(4) for j in range(5)]
QUESTIONS: list[Example] = [
    GroundedExample("1", "what holds tea ?", ("cup", "the box"), ("p0", "p3")),
    GroundedExample("2", "what caused the flood ?", ("rain",), ("p1",)),
    Example("3", "what is part of the car ?", ("wheel",)),
    GroundedExample("4", "what is alpha ?", ("none of these",), ("p2",)),
    GroundedExample("5", "who is beta ?", (), ("p4",)),
    GroundedExample("6", "who is gamma ?", ()),
]


def build(encoder: Path, generator: Path, passages: Sequence[Passage], no_answer: str | None = None) -> RagModel:
    tower = Encoder.open(str(encoder))
    model = RagModel(
        Retriever(tower, tower, 0.1, "query"),
        Generator.open(str(generator), torch.Generator(), None, GeneratorOptions(max_target_tokens=3)),
        QuestionAnswering(no_answer=no_answer),
        KnowledgeBase.from_passages(passages),
    )
    model.refresh_index()
    return model


def ranks(model: RagModel, example: Example) -> list[int]:
    scores = model.retrieve_all([example]).scores.log_prior[0]
    return scores[: len(model.base)].argsort(descending=True).tolist()


def test_the_scores_are_those_counted_by_hand(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq, [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS)])
    model.eval()
    expected: dict[str, list[float]] = {}
    for example in QUESTIONS:
        ranked = ranks(model, example)
        gold = [int(one[1:]) for one in getattr(example, "gold_passages", ())]
        for k in (1, 5, 10, 20):
            if gold:
                expected.setdefault(f"gold_recall@{k}", []).append(len(set(gold) & set(ranked[:k])) / len(gold))
            if example.targets:
                hit = any(has_answer(example.targets, TEXTS[row]) for row in ranked[:k])
                expected.setdefault(f"answer_recall@{k}", []).append(float(hit))
        if gold:
            at = sorted(ranked.index(row) + 1 for row in gold)
            ideal = sum(1 / math.log2(1 + rank) for rank in range(1, len(gold) + 1))
            gain = sum(1 / math.log2(1 + rank) for rank in at if rank <= 10)
            expected.setdefault("gold_MRR@10", []).append(1 / at[0] if at[0] <= 10 else 0.0)
            expected.setdefault("gold_nDCG@10", []).append(gain / ideal)
    model.train()
    found = open_retrieval_scores(model, QUESTIONS)
    assert model.training
    assert found.scores == pytest.approx({name: 100 * sum(one) / len(one) for name, one in expected.items()})
    assert found.example_counts == {"gold": 4, "answer": 4}


def test_each_example_is_searched_once_and_never_for_more_than_the_base_has(
    tiny_encoder: Path, tiny_seq2seq: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(tiny_encoder, tiny_seq2seq, [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS[:6])])
    searches: list[tuple[int, int]] = []
    real = RagModel.retrieve
    monkeypatch.setattr(
        RagModel, "retrieve", lambda self, queries, k: (searches.append((len(queries), k)), real(self, queries, k))[1]
    )
    found = open_retrieval_scores(model, QUESTIONS)
    assert searches == [(5, 5)]
    assert {name for name in found.scores if "recall" in name} == {
        "gold_recall@1", "gold_recall@5", "answer_recall@1", "answer_recall@5"
    }  # fmt: skip


def test_a_gold_document_is_all_its_passages(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    passages = [Passage(f"d{i // 2}#{i % 2}", "", text) for i, text in enumerate(TEXTS[:4])]
    model = build(tiny_encoder, tiny_seq2seq, passages)
    example = GroundedExample("1", "what holds tea ?", (), ("d0",))
    model.eval()
    first = ranks(model, example)[0]
    assert open_retrieval_scores(model, [example]).scores["gold_recall@1"] == (50.0 if first < 2 else 0.0)


def test_what_cannot_be_judged_is_left_out(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq, [Passage("p0", "", "cannot answer")], no_answer="cannot answer")
    assert (
        open_retrieval_scores(model, [Example("1", "what ?", ("cannot answer",)), Example("2", "who ?")]).scores == {}
    )
    with pytest.raises(UserError, match="gold passage 'p9' of example '1' is not in the knowledge base"):
        open_retrieval_scores(model, [GroundedExample("1", "what ?", ("tea",), ("p9",))])


def test_an_evaluation_says_over_how_many(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq, [Passage(f"p{i}", "", text) for i, text in enumerate(TEXTS)])
    found = evaluate(model, QUESTIONS[:3], k=2)
    assert found.example_counts == {"gold": 2, "citations": 2}
    assert {"gold_MRR@10", "answer_recall@20"} <= set(found.neighbours)
    found.save(tmp_path)
    assert json.loads((tmp_path / "scores.json").read_text())["judged"] == {"gold": 2, "citations": 2}
    assert evaluate(model, QUESTIONS[:2], k=2).example_counts == {}
    assert evaluate(model, QUESTIONS[:2], k=0).neighbours == {}
