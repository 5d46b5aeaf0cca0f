"""Towers that come from folders of sentence-transformers: prompts on their sides, and settings that agree with them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.sentence_folders import declare
from tests.test_public_api import CONFIG, PASSAGES, QUESTIONS

import retrograd as rg
from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.rag.embedding import build_index
from retrograd.rag.index_folder import build_index_folder, index_spec
from retrograd.rag.model_parts import build_retriever
from retrograd.rag.settings import RetrieverSettings
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Passage, UserError
from retrograd.util.records import read_record, record_mapping

SENTENCES = ("the cup holds tea .", "rain caused flood", "the box")
BASE = KnowledgeBase.from_passages(Passage(str(i), "", text) for i, text in enumerate(SENTENCES))
PROMPTS = {"query": "what is ", "passage": "alpha "}
INSTRUCTED = QuestionAnswering(query_prefix="what is ", passage_prefix="part : ")


@pytest.fixture
def folder(tiny_encoder: Path, tmp_path: Path) -> Path:
    return declare(tiny_encoder, tmp_path / "model", {"pooling_mode": "cls"}, "Dense", "Normalize", prompts=PROMPTS)


def test_every_index_reads_passages_behind_the_prompt_of_passages(folder: Path, tmp_path: Path) -> None:
    task = QuestionAnswering()
    retriever = build_retriever(RetrieverSettings(str(folder)), task, BASE)
    bare = Encoder.open(str(folder))
    expected = bare.embed([PROMPTS["passage"] + task.passage_text(passage) for passage in BASE])
    every = torch.arange(len(BASE))
    torch.testing.assert_close(build_index(retriever.passage_encoder, task, BASE).vectors(every), expected)
    spec = index_spec(retriever, task, BASE)
    assert spec.dimension == 8
    build_index_folder(retriever, task, BASE, tmp_path / "index", spec)
    torch.testing.assert_close(ExactIndex.load(tmp_path / "index").vectors(every), expected)


@pytest.mark.parametrize("prefix", [{"query_prefix": "query: "}, {"passage_prefix": "passage: "}])
def test_a_prefix_beside_the_prompts_of_the_folder_names_both(folder: Path, prefix: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"data\.query_prefix.*config_sentence_transformers") as caught:
        build_retriever(RetrieverSettings(str(folder)), QuestionAnswering(**prefix), BASE)
    assert repr(*prefix.values()) in str(caught.value)
    assert "what is " in str(caught.value)


@pytest.mark.parametrize("again", [INSTRUCTED, QuestionAnswering()], ids=["prefixes again", "no prefixes"])
def test_a_trained_tower_starts_the_next_run(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, again: QuestionAnswering
) -> None:
    base = KnowledgeBase.from_passages(rg.read_passages(PASSAGES))

    def train(retriever: Path, name: str, task: QuestionAnswering) -> rg.Run:
        names = {"retriever": str(retriever), "generator": str(tiny_seq2seq)}
        model = rg.RagModel.from_pretrained(**names, task=task, base=base, max_target_tokens=4)
        return rg.train(model, QUESTIONS, out=tmp_path / name, config=CONFIG)

    first = train(tiny_encoder, "first", INSTRUCTED)
    tower = first.path / "model" / "retriever" / "query"
    retriever = build_retriever(RetrieverSettings(str(tower)), again, base)
    # The prefix stands before a text once, whether the task has it or the folder's prompt.
    (vector,) = retriever.query_encoder.embed([again.query_text(again.parse_query("the cup"))], "query")
    trained = first.model.retriever.query_encoder
    torch.testing.assert_close(vector.cpu(), trained.embed([INSTRUCTED.query_prefix + "the cup"])[0].cpu())
    second = train(tower, "second", again)
    opened = Encoder.open(str(second.path / "model" / "retriever" / "query"))
    assert opened.head.prompts.before("query") == INSTRUCTED.query_prefix
    assert opened.head.prompts.before("passage") == INSTRUCTED.passage_prefix


@pytest.mark.parametrize("normalise", [True, False, "auto"])
def test_the_settings_of_a_retriever_come_back(normalise: object) -> None:
    settings = read_record(RetrieverSettings, {"normalise": normalise}, "retriever")
    assert settings.normalise == normalise
    assert read_record(RetrieverSettings, record_mapping(settings), "retriever") == settings


@pytest.mark.parametrize("normalise", ["yes", 1, None])
def test_another_value_is_refused_with_those_that_are_allowed(normalise: object) -> None:
    with pytest.raises(UserError, match=r"normalise is .*expected 'auto' or true or false"):
        read_record(RetrieverSettings, {"normalise": normalise}, "retriever")
