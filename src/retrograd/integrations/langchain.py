"""A retriever of LangChain. Only this file imports langchain-core."""

from __future__ import annotations

from retrograd.integrations import describe_hit, lack
from retrograd.rag.rag_model import RagModel

try:
    from langchain_core.callbacks import CallbackManagerForRetrieverRun  # pyright: ignore[reportMissingImports]
    from langchain_core.documents import Document  # pyright: ignore[reportMissingImports]
    from langchain_core.retrievers import BaseRetriever  # pyright: ignore[reportMissingImports]
    from pydantic import ConfigDict, Field
except ImportError:
    raise lack("LangChain", "langchain-core", "langchain") from None

__all__ = ["RetrogradRetriever"]


class RetrogradRetriever(BaseRetriever):
    """The k best passages of a trained model as documents of LangChain, best first.

    Example::

        retriever = RetrogradRetriever(model=rg.open_run("runs/nq").model, k=5)
        documents = retriever.invoke("who wrote the first program?")
    """

    model_config = ConfigDict(arbitrary_types_allowed=True)

    model: RagModel
    k: int = Field(5, ge=1)

    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return [
            Document(id=hit.passage.id, page_content=hit.passage.text, metadata=describe_hit(hit))
            for hit in self.model.search(query, self.k)
        ]
