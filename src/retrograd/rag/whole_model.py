"""A model of which each rank holds its share, for the moment in which it is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from retrograd.index.protocol import is_spread_over_ranks
from retrograd.models.compute.fsdp import gather_weights
from retrograd.models.loading.lora import has_lora
from retrograd.rag.rag_model import RagModel

__all__ = ["whole_model"]


@contextmanager
def whole_model(model: RagModel) -> Iterator[None]:
    """Inside, the model of rank 0 has the whole index, and the weights of the generator that are saved, in main memory.
    All ranks enter together.

    Nothing changes for the other ranks, nor for what is not spread.
    """
    index = model.index if model.has_index else None
    whole = index.whole() if index is not None and is_spread_over_ranks(index) else None
    with gather_weights(model.generator, trained_alone=has_lora(model.generator)):
        if index is None or whole is None:
            yield
            return
        model.use_index(whole)
        try:
            yield
        finally:
            model.use_index(index)
