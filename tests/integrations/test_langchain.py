"""The retriever of LangChain, with the real package."""

from __future__ import annotations

import pytest
from tests.requirements import skip_without_framework

import retrograd as rg
from retrograd.integrations import describe_hit

pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore")]
skip_without_framework("langchain_core")

QUESTION = "what holds tea ?"


def test_documents_are_the_hits_of_the_model(model: rg.RagModel, hits: list[rg.Hit]) -> None:
    from langchain_core.runnables import RunnableLambda

    from retrograd.integrations.langchain import RetrogradRetriever

    retriever = RetrogradRetriever(model=model, k=3)
    documents = retriever.invoke(QUESTION)
    assert [document.metadata for document in documents] == [describe_hit(hit) for hit in hits]
    assert [document.page_content for document in documents] == [hit.passage.text for hit in hits]
    assert [document.id for document in documents] == [hit.passage.id for hit in hits]
    chain = retriever | RunnableLambda(lambda found: [document.id for document in found])
    assert chain.batch([QUESTION, QUESTION]) == [[hit.passage.id for hit in hits]] * 2
    with pytest.raises(ValueError, match="greater than or equal to 1"):
        RetrogradRetriever(model=model, k=0)
    with pytest.raises(rg.UserError, match="the question is blank"):
        retriever.invoke(" ")
