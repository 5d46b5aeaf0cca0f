"""A control that reads the target: it bounds what a better retriever could do for a generator.

No model of the query alone can find these passages, so a report of its score must state that the search read the
answer. A query without a target, or whose target no passage supports, gets the candidates of its own retriever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.data.examples import gold_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index, Neighbours
from retrograd.models.compute.precision import full_precision
from retrograd.rag.candidates import Candidates
from retrograd.rag.search.dense import VectorSearch, find_nearest, score_base
from retrograd.rag.search.queries import Queries
from retrograd.rag.search.search import SearchRequest
from retrograd.tasks.relevance import rows_by_id
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, UserError

__all__ = ["ORACLE_SHARE", "Oracle", "OracleSearch"]

ORACLE_SHARE = "oracle_found"
"""The share of examples for which an oracle has any passage that supports the target; others find their nearest."""


class Oracle:
    """The passages of a base that support each example's target.

    They are the gold ones where the data mark any, else those that the task's own test accepts for one of the
    acceptable answers.
    Raises `UserError` for a task without such a test.
    """

    def __init__(self, task: Task, base: KnowledgeBase, support: Support | None) -> None:
        if support is None:
            raise UserError(
                f'retriever.search = "oracle" needs a test of which passages support a target, which the task '
                f'{task.name!r} does not have; set it to "nearest"'
            )
        self._base, self._support = base, support

    @cached_property
    def _by_id(self) -> dict[str, tuple[int, ...]]:
        return rows_by_id(self._base)

    def rows(self, examples: Sequence[Example], excluded_rows: Int[Tensor, "B E"]) -> list[Int[Tensor, " _"]]:
        """Return the accepted rows of each example, ascending, without its ``excluded_rows``."""
        return [
            torch.as_tensor(np.setdiff1d(self._accepted(example), own), dtype=torch.long, device=excluded_rows.device)
            for example, own in zip(examples, excluded_rows.cpu().numpy(), strict=True)
        ]

    def _accepted(self, example: Example) -> np.ndarray:
        supporting = [self._by_id.get(id_, ()) for id_ in gold_passages(example)]
        if not any(supporting):
            supporting = [self._support(replace(example, targets=(target,))) for target in example.targets]
        return np.unique(np.concatenate([np.asarray(rows, dtype=np.int64) for rows in (*supporting, ())]))


class OracleSearch(VectorSearch):
    """The search for the nearest passages among those that support the target; log Z is then over these.

    A query without any gets the retriever's candidates.
    """

    @cached_property
    def _oracle(self) -> Oracle:
        return Oracle(self._space.task, self._space.base, self._space.support)

    def candidates(self, request: SearchRequest) -> Candidates:
        options = replace(request.options, normaliser_draws=0)  # log Z is not over the base
        return super().candidates(replace(request, options=options))

    def find(self, request: SearchRequest, queries: Queries, k: int) -> list[Neighbours]:
        accepted = self._oracle.rows(request.examples, queries.excluded_rows)
        return _find_accepted(queries, accepted, request.require_index(), k)

    def whole_base(self, request: SearchRequest) -> Candidates:
        queries = self.embed(request)
        accepted = self._oracle.rows(request.examples, queries.excluded_rows)
        excluded_rows = _exclude_others(queries.excluded_rows, accepted, len(self._space.base))
        return score_base(self._space, request.require_index(), replace(queries, excluded_rows=excluded_rows))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        accepted = self._oracle.rows(examples, self._space.own_rows(examples))
        return {ORACLE_SHARE: 100.0 * sum(len(rows) > 0 for rows in accepted) / len(examples)}


def _find_accepted(queries: Queries, accepted: Sequence[Int[Tensor, " _"]], index: Index, k: int) -> list[Neighbours]:
    """Return the prior's k nearest rows; for queries that have ``accepted`` rows, the nearest of these.

    One query at a time: half of a base may bear the same relation. The index is searched once, whatever is accepted:
    the ranks that share an index must search it equally often.
    """
    with full_precision(queries.prior.device):
        (nearest,) = find_nearest(queries, index, k)  # an oracle has no posterior beside it
        row, logit = nearest.row.clone(), nearest.logit.clone()
        total = None if nearest.log_normaliser is None else nearest.log_normaliser.clone()
        every = torch.cat([row.new_empty(0), *accepted]).unique()
        vectors = index.vectors(every)
        for b, own in enumerate(accepted):
            if len(own) == 0:
                continue
            scores = vectors[torch.searchsorted(every, own)] @ queries.prior[b]
            scores, order = scores.sort(descending=True, stable=True)
            width = min(k, len(own), row.shape[1])
            row[b], logit[b] = -1, -torch.inf
            row[b, :width], logit[b, :width] = own[order[:width]], scores[:width]
            if total is not None:
                total[b] = scores.logsumexp(dim=0)
    return [Neighbours(row, logit, total)]


def _exclude_others(
    excluded_rows: Int[Tensor, "B E"], accepted: Sequence[Int[Tensor, " _"]], passages: int
) -> Int[Tensor, "B _"]:
    """Return the rows to exclude: the excluded ones, and all but the accepted ones where a query has any."""
    if not any(len(own) for own in accepted):
        return excluded_rows
    every = torch.arange(passages, device=excluded_rows.device).repeat(len(excluded_rows), 1)
    for b, own in enumerate(accepted):
        every[b] = every[b].index_fill(0, own, -1) if len(own) else -1
    return torch.cat([excluded_rows, every], dim=1)
