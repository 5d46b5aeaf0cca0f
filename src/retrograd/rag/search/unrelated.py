"""A control: the retriever searches with a passage that has nothing to do with the query."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.rag.candidates import Candidates
from retrograd.rag.search.dense import find_nearest, make_candidates, score_base, score_rows
from retrograd.rag.search.queries import Queries, embed_queries
from retrograd.rag.search.search import SearchKind, SearchRequest, SearchSpace
from retrograd.rag.search.substitution import choose_unrelated_rows, mark_prior_only, substitute_with
from retrograd.types import Example

__all__ = ["UNRELATED", "UnrelatedSearch"]


class UnrelatedSearch:
    """The search for the nearest passages of an unrelated passage of the base, always the same one for a query."""

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def candidates(self, request: SearchRequest) -> Candidates:
        queries = mark_prior_only(request, self._queries(request))
        neighbours = find_nearest(queries, request.require_index(), request.k)
        return make_candidates(self._space, request, queries, neighbours)

    def candidates_at(self, request: SearchRequest, rows: Int[Tensor, "B K"]) -> Candidates:
        index, queries = request.require_index(), self._queries(request)
        return score_rows(self._space, index, queries, find_nearest(queries, index, 1), rows)

    def whole_base(self, request: SearchRequest) -> Candidates:
        return score_base(self._space, request.require_index(), self._queries(request))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {}

    def _queries(self, request: SearchRequest) -> Queries:
        queries = embed_queries(self._space, request.examples, request.options.posterior)
        rows = choose_unrelated_rows(request.examples, queries.excluded_rows, len(self._space.base))
        every_query = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
        return substitute_with(self._space, request.require_index(), queries, rows, every_query)


UNRELATED = SearchKind(
    "random",
    UnrelatedSearch,
    needs_index=True,
    has_vectors=True,
    trains_retriever=False,
    takes_other_rows=True,
    is_control=True,
)
