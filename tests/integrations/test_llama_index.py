"""The retriever of LlamaIndex, with the real package."""

from __future__ import annotations

import pytest
from tests.requirements import skip_without_framework

import retrograd as rg
from retrograd.integrations import describe_hit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
skip_without_framework("llama_index")

QUESTION = "what holds tea ?"


def test_nodes_are_the_hits_of_the_model(model: rg.RagModel, hits: list[rg.Hit]) -> None:
    from llama_index.core.schema import QueryBundle

    from retrograd.integrations.llama_index import RetrogradRetriever

    retriever = RetrogradRetriever(model, k=3)
    for query in (QUESTION, QueryBundle(QUESTION)):
        nodes = retriever.retrieve(query)
        assert [node.metadata for node in nodes] == [describe_hit(hit) for hit in hits]
        assert [node.node_id for node in nodes] == [hit.passage.id for hit in hits]
        assert [node.text for node in nodes] == [hit.passage.text for hit in hits]
        assert [node.score for node in nodes] == [hit.probability for hit in hits]
