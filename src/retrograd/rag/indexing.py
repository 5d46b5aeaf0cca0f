"""Knowledge base → embeddings → index: the passage tower reads the base block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.corpus.exact_index import ExactIndex
from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.io import fingerprint
from retrograd.models.retriever import Retriever
from retrograd.tasks.task import Task

__all__ = ["build_index", "passage_fingerprint"]

_BLOCK_ROWS = 2_048


def build_index(
    retriever: Retriever,
    task: Task,
    base: KnowledgeBase,
    dtype: torch.dtype = torch.float32,
    progress: Callable[[int], None] | None = None,
) -> ExactIndex:
    """Embed all N passages, in the words the task gives them. ``progress`` is told the rows of each block."""
    return ExactIndex.from_blocks(
        _embedded(retriever, task, base, progress),
        len(base),
        base_fingerprint=base.fingerprint,
        encoder_fingerprint=passage_fingerprint(retriever, task, base),
        dtype=dtype,
        device=retriever.passage_encoder.device,
    )


def _embedded(
    retriever: Retriever, task: Task, base: KnowledgeBase, progress: Callable[[int], None] | None
) -> Iterator[Float[Tensor, "n D"]]:
    for block in base.blocks(_BLOCK_ROWS):
        yield retriever.passage_encoder.embed([task.passage_text(passage) for passage in block])
        if progress is not None:
            progress(len(block))


def passage_fingerprint(retriever: Retriever, task: Task, base: KnowledgeBase) -> str:
    """What decides a stored embedding besides the base: the passage tower, and how the task words a passage."""
    return fingerprint([retriever.passage_encoder.fingerprint(), task.passage_text(base[0])])
