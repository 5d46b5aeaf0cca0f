"""Retrieval that is told the target: the control that bounds what a better retriever could do for a generator.

No model of the query alone can find this, so whoever shows its score says that it was told the answer. A query whose
target nothing supports, or that has none, finds what its own retriever does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.corpus.index import Index, Neighbours
from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.rag.distraction import Asked
from retrograd.tasks.grounded_example import GroundedExample
from retrograd.tasks.relevance import rows_by_id
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, UserError

__all__ = ["Oracle", "best_accepted", "not_accepted"]


class Oracle:
    """Which passages of a base support each example's target: the gold ones where the data mark any, else those that
    the task's own test accepts for one of the acceptable answers.

    Raises `UserError` for a task without such a test.
    """

    def __init__(self, task: Task, base: KnowledgeBase, support: Support | None) -> None:
        if support is None:
            raise UserError(
                f'retriever.search = "oracle" asks which passages support a target, and the task {task.name!r} has no '
                f'test of that; set it to "nearest"'
            )
        self._base, self._support = base, support

    @cached_property
    def _by_id(self) -> dict[str, tuple[int, ...]]:
        return rows_by_id(self._base)

    def rows(self, examples: Sequence[Example], hidden: Int[Tensor, "B E"]) -> list[Int[Tensor, " _"]]:
        """The accepted rows of each example, ascending, none of its ``hidden`` ones; none where it has no target."""
        return [
            torch.as_tensor(np.setdiff1d(self._accepted(example), own), dtype=torch.long, device=hidden.device)
            for example, own in zip(examples, hidden.cpu().numpy(), strict=True)
        ]

    def _accepted(self, example: Example) -> np.ndarray:
        marked = example.gold_passages if isinstance(example, GroundedExample) else ()
        found = [self._by_id.get(id_, ()) for id_ in marked]
        if not any(found):
            found = [self._support(replace(example, targets=(target,))) for target in example.targets]
        return np.unique(np.concatenate([np.asarray(rows, dtype=np.int64) for rows in (*found, ())]))


def best_accepted(asked: Asked, index: Index, k: int, found: Sequence[Neighbours]) -> list[Neighbours]:
    """``found``, the prior's k best rows, with those of queries that have accepted rows exchanged for the best of
    these; log Z is then over the accepted rows.

    One query at a time: half of a base may bear the same relation. The index is asked once, whatever is accepted: the
    ranks that hold one together must ask it equally often.
    """
    (nearest,) = found  # an oracle has no posterior beside it
    row, logit = nearest.row.clone(), nearest.logit.clone()
    total = None if nearest.log_normaliser is None else nearest.log_normaliser.clone()
    accepted = asked.accepted or []
    every = torch.cat([row.new_empty(0), *accepted]).unique()
    vectors = index.vectors(every)
    for b, own in enumerate(accepted):
        if len(own) == 0:
            continue
        scores, order = (vectors[torch.searchsorted(every, own)] @ asked.query[b]).sort(descending=True, stable=True)
        width = min(k, len(own), row.shape[1])
        row[b], logit[b] = -1, -torch.inf
        row[b, :width], logit[b, :width] = own[order[:width]], scores[:width]
        if total is not None:
            total[b] = scores.logsumexp(dim=0)
    return [Neighbours(row, logit, total)]


def not_accepted(asked: Asked, passages: int) -> Int[Tensor, "B _"]:
    """The rows that each query must not find: the hidden ones, and all others where it has accepted ones."""
    accepted, hidden = asked.accepted or [], asked.hidden
    if not any(len(own) for own in accepted):
        return hidden
    every = torch.arange(passages, device=hidden.device).repeat(len(hidden), 1)
    for b, own in enumerate(accepted):
        every[b] = every[b].index_fill(0, own, -1) if len(own) else -1
    return torch.cat([hidden, every], dim=1)
