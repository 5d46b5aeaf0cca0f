"""The retriever of Haystack, with the real package."""

from __future__ import annotations

import pytest
from tests.requirements import skip_without_framework

import retrograd as rg
from retrograd.integrations import describe_hit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
skip_without_framework("haystack")

QUESTION = "what holds tea ?"


def test_documents_are_the_hits_of_the_model(model: rg.RagModel, hits: list[rg.Hit], tmp_path) -> None:
    from haystack import Pipeline

    from retrograd.integrations.haystack import RetrogradRetriever

    pipeline = Pipeline()
    pipeline.add_component("retriever", RetrogradRetriever(model, k=3))
    documents = pipeline.run({"retriever": {"query": QUESTION}})["retriever"]["documents"]
    assert [document.meta for document in documents] == [describe_hit(hit) for hit in hits]
    assert [document.content for document in documents] == [hit.passage.text for hit in hits]
    assert [document.score for document in documents] == [hit.probability for hit in hits]
    assert len(pipeline.run({"retriever": {"query": QUESTION, "k": 1}})["retriever"]["documents"]) == 1
    with pytest.raises(rg.UserError, match="made of an open model"):
        pipeline.to_dict()


def test_a_pipeline_with_a_folder_is_written_and_read_again(model: rg.RagModel, hits, tmp_path) -> None:
    from haystack import Pipeline

    from retrograd.integrations.haystack import RetrogradRetriever

    model.save_pretrained(tmp_path / "saved")
    pipeline = Pipeline()
    pipeline.add_component("retriever", RetrogradRetriever(str(tmp_path / "saved"), k=3))
    again = Pipeline.loads(pipeline.dumps(), allowed_modules=["retrograd.integrations.haystack"])
    documents = again.run({"retriever": {"query": QUESTION}})["retriever"]["documents"]
    assert [document.id for document in documents] == [hit.passage.id for hit in hits]
