"""A retriever of LlamaIndex. Only this file imports llama-index-core."""

from __future__ import annotations

from retrograd.integrations import describe_hit, lack
from retrograd.rag.rag_model import RagModel

try:
    from llama_index.core.retrievers import BaseRetriever  # pyright: ignore[reportMissingImports]
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode  # pyright: ignore[reportMissingImports]
except ImportError:
    raise lack("LlamaIndex", "llama-index-core", "llama-index") from None

__all__ = ["RetrogradRetriever"]


class RetrogradRetriever(BaseRetriever):
    """The k best passages of a trained model as nodes of LlamaIndex, best first; a node's score is p(z|x).

    Example::

        retriever = RetrogradRetriever(rg.open_run("runs/nq").model, k=5)
        nodes = retriever.retrieve("who wrote the first program?")
    """

    def __init__(self, model: RagModel, k: int = 5) -> None:
        super().__init__()
        self._model = model
        self._k = k

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return [
            NodeWithScore(
                node=TextNode(id_=hit.passage.id, text=hit.passage.text, metadata=describe_hit(hit)),
                score=hit.probability,
            )
            for hit in self._model.search(query_bundle.query_str, self._k)
        ]
