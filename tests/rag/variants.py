"""Models of the same parts that search or answer otherwise: what a model does is fixed when it is made."""

from __future__ import annotations

from retrograd.models.retriever import Retriever
from retrograd.rag.answers.answering import Answering
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search_kinds import SearchKind
from retrograd.tasks.task import Task


def variant(
    model: RagModel,
    *,
    retriever: Retriever | None = None,
    task: Task | None = None,
    null_passage: bool | None = None,
    search: SearchKind | None = None,
    answering: Answering | None = None,
) -> RagModel:
    """A model that shares all parts with ``model``, its index included, but for those given."""
    other = RagModel(
        retriever or model.retriever,
        model.generator,
        task or model.task,
        model.base,
        model.posterior,
        model.null_passage if null_passage is None else null_passage,
        search=search or model.search_kind,
        answering=answering or model.answering,
        sharded=model.sharded,
    )
    if model.has_index:
        other.use_index(model.index)
    return other.train(model.training)
