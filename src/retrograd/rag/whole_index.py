"""A model whose index is spread over ranks, for the moment in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retrograd.corpus.sharded_index import ShardedIndex
from retrograd.rag.rag_model import RagModel

__all__ = ["whole_index"]


@contextmanager
def whole_index(model: RagModel) -> Iterator[None]:
    """Inside, the model of rank 0 has the whole index, in main memory: N·D numbers more. All ranks enter together.

    Nothing changes for the other ranks, nor for an index that is not spread.
    """
    index = model.index if model.has_index else None
    whole = index.whole() if isinstance(index, ShardedIndex) else None
    if index is None or whole is None:
        yield
        return
    model.use_index(whole)
    try:
        yield
    finally:
        model.use_index(index)
