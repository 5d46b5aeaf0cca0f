"""A retriever for programs of DSPy. Only this file imports dspy."""

# Where dspy is not installed, the checker takes this file for it.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from retrograd.integrations import describe_hit, lack
from retrograd.rag.rag_model import RagModel

try:
    import dspy  # pyright: ignore[reportMissingImports]
except ImportError:
    raise lack("DSPy", "dspy", "dspy") from None

__all__ = ["RetrogradRetriever"]


class RetrogradRetriever(dspy.Retrieve):
    """The k best passages of a trained model as a prediction of DSPy, best first: their texts, and their metadata.

    Example::

        retrieve = RetrogradRetriever(rg.open_run("runs/nq").model, k=5)
        context = retrieve("who wrote the first program?").passages
    """

    def __init__(self, model: RagModel, k: int = 5) -> None:
        super().__init__(k=k)
        self._model = model

    def forward(self, query: str, k: int | None = None) -> dspy.Prediction:
        """Return ``passages``, the texts of the best passages of a query, and ``metadata``, a record of each."""
        hits = self._model.search(query, self.k if k is None else k)
        texts = [hit.passage.text for hit in hits]
        return dspy.Prediction(passages=texts, metadata=[describe_hit(hit) for hit in hits])
