"""An index built in a folder is the index built in memory, however it is cut, and says what it needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from retrograd.index.exact import ExactIndex
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever
from retrograd.rag import embedding as indexing
from retrograd.rag import index_folder
from retrograd.rag.embedding import build_index
from retrograd.rag.index_folder import build_index_folder, index_spec, plan_build
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Passage, UserError

TASK = RelationExtraction.semeval("marked", "labelled")
SENTENCES = ("the cup holds tea .", "rain caused flood", "the box", "tea came from the box .", "wheel of the car")
BASE = KnowledgeBase.from_passages(Passage(str(i), "", text) for i, text in enumerate(SENTENCES))


def test_equals_the_index_in_memory(tiny_encoder: Path, tmp_path: Path) -> None:
    encoder = Encoder.open(str(tiny_encoder))
    retriever = Retriever(encoder, encoder)
    expected = build_index(retriever.passage_encoder, TASK, BASE).vectors(torch.arange(5))
    spec = index_spec(retriever, TASK, BASE)
    for shard_rows in (2, 100):
        root = tmp_path / str(shard_rows)
        folder = build_index_folder(retriever, TASK, BASE, root, replace(spec, shard_rows=shard_rows))
        assert len(list(folder.glob("*.safetensors"))) == -(-5 // shard_rows)
        index = ExactIndex.load(root, base_fingerprint=BASE.fingerprint, encoder_fingerprint=spec.encoder_fingerprint)
        torch.testing.assert_close(index.vectors(torch.arange(5)), expected)


def test_the_spec_says_how_texts_become_vectors(tiny_encoder: Path) -> None:
    encoder = Encoder.open(str(tiny_encoder), pooling="cls", normalise=False, max_tokens=20)
    retriever = Retriever(encoder, encoder)
    said = index_spec(retriever, TASK, BASE).encoding
    assert said == "cls pooling, length as it comes, at most 20 tokens, encoded in float32"
    with torch.autocast("cpu", torch.bfloat16):
        assert index_spec(retriever, TASK, BASE).encoding.endswith("encoded in bfloat16")


def test_the_plan_counts_what_an_earlier_build_finished(tiny_encoder: Path, tmp_path: Path) -> None:
    encoder = Encoder.open(str(tiny_encoder))
    retriever = Retriever(encoder, encoder)
    spec = index_spec(retriever, TASK, BASE, torch.bfloat16)
    plan = plan_build(retriever, TASK, BASE, tmp_path / "index", spec)
    assert (plan.passages, plan.remaining, plan.vector_bytes) == (5, 5, 5 * 16 * 2)
    assert plan.seconds_per_passage > 0
    build_index_folder(retriever, TASK, BASE, tmp_path / "index", spec)
    assert plan_build(retriever, TASK, BASE, tmp_path / "index", spec).remaining == 0
    assert plan_build(retriever, TASK, BASE, tmp_path / "index", replace(spec, dtype=torch.float32)).remaining == 5


def test_what_an_unfinished_build_of_something_else_takes_counts_as_free(
    tiny_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is discarded first: a disk that it fills has room for the new build."""
    encoder = Encoder.open(str(tiny_encoder))
    retriever = Retriever(encoder, encoder)
    spec = index_spec(retriever, TASK, BASE)
    unfinished = tmp_path / "index" / ".v000001.build"
    unfinished.mkdir(parents=True)
    (unfinished / "shard-00000.safetensors").write_bytes(bytes(3_000_000))
    monkeypatch.setattr(index_folder, "free_disk", lambda _: 0)
    plan = plan_build(retriever, TASK, BASE, tmp_path / "index", spec)
    assert plan.free_disk == 3_000_000
    build_index_folder(retriever, TASK, BASE, tmp_path / "index", spec)
    with pytest.raises(UserError, match="are free there"):
        build_index_folder(retriever, TASK, BASE, tmp_path / "index", replace(spec, dtype=torch.bfloat16))


def test_in_memory_what_does_not_fit_is_refused(tiny_encoder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder.open(str(tiny_encoder))
    asked = []

    def full(count: int) -> None:
        asked.append(count)
        raise UserError("full")

    monkeypatch.setattr(indexing, "require_memory", full)
    with pytest.raises(UserError, match="full"):
        build_index(encoder, TASK, BASE)
    assert asked == [5 * 16 * 4]
