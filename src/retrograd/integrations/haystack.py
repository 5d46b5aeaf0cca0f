"""A component of Haystack. Only this file imports haystack-ai.

Haystack reads the annotations of `run` as they are, so that this file does without ``from __future__``.
"""

# Where haystack is not installed, the checker takes this file for it.
# pyright: reportAttributeAccessIssue=false, reportCallIssue=false, reportInvalidTypeForm=false

from typing import Any

from retrograd.integrations import describe_hit, lack
from retrograd.rag.rag_model import RagModel
from retrograd.types import UserError

try:
    from haystack import (  # pyright: ignore[reportMissingImports]
        Document,
        component,
        default_from_dict,
        default_to_dict,
    )
except ImportError:
    raise lack("Haystack", "haystack-ai", "haystack") from None

__all__ = ["RetrogradRetriever"]


@component
class RetrogradRetriever:
    """The k best passages of a trained model as documents of Haystack, best first; a document's score is p(z|x).

    ``model`` is an open model, or the folder of one that `RagModel.save_pretrained` wrote: only then can a pipeline be
    written to a file.

    Example::

        pipeline = Pipeline()
        pipeline.add_component("retriever", RetrogradRetriever("my-rag", k=5))
        documents = pipeline.run({"retriever": {"query": "who wrote it?"}})["retriever"]["documents"]
    """

    def __init__(self, model: RagModel | str, k: int = 5) -> None:
        self._folder = model if isinstance(model, str) else None
        self._model = None if isinstance(model, str) else model
        self._k = k

    def warm_up(self) -> None:
        """Open the model of a folder."""
        if self._model is None:
            self._model = RagModel.from_pretrained(self._folder)

    @component.output_types(documents=list[Document])
    def run(self, query: str, k: int | None = None) -> dict[str, list[Document]]:
        """Return the k best passages of a query, as many as the component was made for unless ``k`` is given."""
        self.warm_up()
        assert self._model is not None
        hits = self._model.search(query, self._k if k is None else k)
        return {
            "documents": [
                Document(id=hit.passage.id, content=hit.passage.text, meta=describe_hit(hit), score=hit.probability)
                for hit in hits
            ]
        }

    def to_dict(self) -> dict[str, Any]:
        """Return what `from_dict` makes an equal component of. Raises `UserError` for one of an open model."""
        if self._folder is None:
            raise UserError(
                "the component was made of an open model, which a pipeline's file cannot hold; save it "
                "(save_pretrained), and make the component of the folder"
            )
        return default_to_dict(self, model=self._folder, k=self._k)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "RetrogradRetriever":
        """Return the component that `to_dict` described."""
        return default_from_dict(cls, data)
