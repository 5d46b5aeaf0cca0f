"""A saved retriever says how to feed it: sentence-transformers gives plain texts the vectors of the model."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.rag.test_hybrid import build as build_hybrid
from tests.rag.test_rag_model import build as build_relations
from tests.sentence_folders import declare

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.rag.rag_model import RagModel
from retrograd.rag.retriever_texts import describe_texts, find_limits
from retrograd.rag.search_kinds import BM25
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError

QUESTIONS = ["what holds tea ?", "who caused the flood ?", "the wheel"]
PASSAGES = [
    Passage("1", "cup", "the cup holds tea ."),
    Passage("2", "", "rain caused flood"),
    Passage("3", "car", "in"),
]
INSTRUCTED = QuestionAnswering(query_prefix="what is the ", passage_prefix="part : ")


def build(query: Path, generator: Path, task=INSTRUCTED, passage: Path | None = None) -> RagModel:
    tower = Encoder.open(str(query), max_tokens=32)
    other = tower if passage is None else Encoder.open(str(passage), max_tokens=32)
    rng = torch.Generator().manual_seed(0)
    base = KnowledgeBase.from_passages(PASSAGES)
    model = RagModel(Retriever(tower, other), Generator.open(str(generator), rng), task, base).eval()
    model.refresh_index()
    return model


def expected(model: RagModel) -> tuple[torch.Tensor, torch.Tensor]:
    queries = [model.task.query_text(model.task.parse_query(text)) for text in QUESTIONS]
    passages = [model.task.passage_text(passage) for passage in PASSAGES]
    return model.retriever.query_encoder.embed(queries, "query"), model.retriever.passage_encoder.embed(
        passages, "passage"
    )


def require_close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def plain_passages(folder: Path) -> list[str]:
    """Join title and text as a reader of ``texts.json`` does."""
    record = json.loads((folder / "texts.json").read_text())["passage"]
    template = record["plain_text"]

    def join(passage: Passage) -> str:
        values = {"{title}": passage.title, "{text}": passage.text}
        return re.sub(r"\{title\}|\{text\}", lambda match: values[match.group()], template)

    return [join(passage) if passage.title else passage.text for passage in PASSAGES]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task", [INSTRUCTED, QuestionAnswering(), GroundedDialogue(query_prefix="who : ")], ids=repr)
def test_plain_texts_get_the_vectors_of_the_model(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, task) -> None:
    library = pytest.importorskip("sentence_transformers")
    model = build(tiny_encoder, tiny_seq2seq, task)
    model.save_pretrained(tmp_path / "model")
    folder = tmp_path / "model" / "retriever" / "query"
    record = json.loads((folder / "texts.json").read_text())
    assert record["plain_texts_suffice"], record["limits"]
    assert record["passage"]["plain_text"] == "{title}: {text}"
    theirs = library.SentenceTransformer(str(folder), device="cpu")
    queries, passages = expected(model)
    plain = plain_passages(folder)
    for encode, texts, wanted in (
        (theirs.encode_query, QUESTIONS, queries),
        (theirs.encode_document, plain, passages),
        (lambda texts, **o: theirs.encode(texts, prompt_name="query", **o), QUESTIONS, queries),
        (lambda texts, **o: theirs.encode(texts, prompt_name="passage", **o), plain, passages),
        (lambda texts, **o: theirs.encode(texts, prompt_name="document", **o), plain, passages),
    ):
        require_close(encode(texts, convert_to_tensor=True, show_progress_bar=False), wanted)
    # So the best passage of sentence-transformers is that of the model.
    scores = theirs.similarity(theirs.encode_query(QUESTIONS), theirs.encode_document(plain))
    assert [PASSAGES[row].id for row in scores.argmax(-1).tolist()] == [
        model.search(question, k=1)[0].passage.id for question in QUESTIONS
    ]


def test_prompts_of_the_task_are_not_read_twice(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model = build(tiny_encoder, tiny_seq2seq)
    model.save_pretrained(tmp_path / "model")
    again = RagModel.from_pretrained(tmp_path / "model", device="cpu")
    assert again.retriever.query_encoder.fingerprint() == model.retriever.query_encoder.fingerprint()
    again.save_pretrained(tmp_path / "again")
    for path in ("retriever/query/config_sentence_transformers.json", "retriever/query/texts.json"):
        assert (tmp_path / "again" / path).read_bytes() == (tmp_path / "model" / path).read_bytes()
    # Opened by itself the folder brings its prompts, as from the hub: then texts do without the prefix.
    tower = Encoder.open(str(tmp_path / "model" / "retriever" / "query"), max_tokens=32)
    require_close(tower.embed(QUESTIONS, "query"), expected(model)[0])


@pytest.mark.filterwarnings("ignore")
def test_the_models_own_prompts_and_separate_towers(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    prompts = {"query": "what is ", "corpus": "alpha "}
    own = declare(
        tiny_encoder, tmp_path / "own", {"pooling_mode": "cls"}, prompts=prompts, default_prompt_name="corpus"
    )
    plain = declare(tiny_encoder, tmp_path / "plain", {"pooling_mode": "cls"})
    model = build(own, tiny_seq2seq, QuestionAnswering(), plain)
    model.save_pretrained(tmp_path / "model")
    folder = tmp_path / "model" / "retriever"
    queries, passages = expected(model)
    theirs = library.SentenceTransformer(str(folder / "query"), device="cpu")
    require_close(theirs.encode_query(QUESTIONS, convert_to_tensor=True), queries)
    assert theirs.default_prompt_name == "corpus"
    theirs = library.SentenceTransformer(str(folder / "passage"), device="cpu")
    require_close(theirs.encode_document(plain_passages(folder / "passage"), convert_to_tensor=True), passages)
    assert "query" not in json.loads((folder / "passage" / "texts.json").read_text())
    again = RagModel.from_pretrained(tmp_path / "model", device="cpu")
    assert again.retriever.query_encoder.head.prompts == model.retriever.query_encoder.head.prompts


def test_what_no_prefix_can_say_is_said(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    model, _ = build_hybrid(tiny_encoder, tiny_seq2seq)
    model.save_pretrained(tmp_path / "hybrid")
    record = json.loads((tmp_path / "hybrid" / "retriever" / "query" / "texts.json").read_text())
    assert not record["plain_texts_suffice"]
    assert "hybrid" in " ".join(record["limits"])
    assert "@ head @" in record["query"]["queries"]

    model, _ = build_relations(tiny_encoder, tiny_seq2seq)
    texts = describe_texts(model.task)
    assert (texts.query, texts.passage) == ("{query}", "{text}")
    assert not find_limits(texts, model.retriever)
    assert '"bm25"' in find_limits(texts, model.retriever, BM25)[0]
    roles = Encoder.open(str(tiny_encoder), "roles", role_spans=model.task.role_spans)
    assert "head, tail and context" in find_limits(texts, Retriever(roles, roles))[0]
    styled = describe_texts(RelationExtraction.semeval("between"))
    assert (styled.query, styled.passage) == (None, None)
    assert len(styled.faults) == 2


@dataclass(frozen=True)
class Shouting(QuestionAnswering):
    """A task that changes letters, and puts words behind a passage."""

    def query_text(self, example) -> str:
        return example.query.upper()

    def passage_text(self, passage: Passage) -> str:
        return f"{passage.text} of {passage.title}"


def test_a_task_of_ones_own_is_asked_what_it_does() -> None:
    texts = describe_texts(Shouting())
    assert texts.query is None
    assert texts.passage == "{text} of {title}"
    assert texts.untitled == "{text} of "
    assert len(texts.faults) == 2


@pytest.mark.parametrize("title", ["\\emph{text}", "{title}", "\\1"])
def test_signs_of_a_template_in_a_passage_are_text(title: str) -> None:
    texts = describe_texts(INSTRUCTED)
    for passage in (Passage("1", title, "of {title}, {text}"), Passage("2", "", "of {title}, {text} \\1")):
        assert texts.prefixes["passage"] + texts.passage_of(passage) == INSTRUCTED.passage_text(passage)


@dataclass(frozen=True)
class Typed(QuestionAnswering):
    """A task whose queries have a shape, which no typed-in text has."""

    fault: type[Exception] = UserError

    def parse_query(self, text: str):
        raise self.fault(f"{text!r} is no query")

    def query_text(self, example) -> str:
        return " ".join(example.turns)


def test_a_task_may_refuse_what_it_is_asked() -> None:
    texts = describe_texts(Typed())
    assert (texts.query, texts.passage) == (None, "{title}: {text}")


def test_a_fault_of_a_task_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        describe_texts(Typed(fault=ZeroDivisionError))

    class Faulty(QuestionAnswering):
        def passage_text(self, passage: Passage) -> str:
            return passage.txt  # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(AttributeError, match="txt"):
        describe_texts(Faulty())

    class FaultyQuery(QuestionAnswering):
        def query_text(self, example: Example) -> str:
            return example.question  # pyright: ignore[reportAttributeAccessIssue]

    with pytest.raises(AttributeError, match="question"):
        describe_texts(FaultyQuery())
