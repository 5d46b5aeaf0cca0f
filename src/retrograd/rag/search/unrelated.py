"""A control: the retriever searches with a passage that has nothing to do with the query."""

from __future__ import annotations

import torch

from retrograd.rag.search.dense import VectorSearch
from retrograd.rag.search.queries import Queries
from retrograd.rag.search.search import SearchRequest
from retrograd.rag.search.substitution import choose_unrelated_rows, substitute_with

__all__ = ["UnrelatedSearch"]


class UnrelatedSearch(VectorSearch):
    """The search for the nearest passages of an unrelated passage of the base, always the same one for a query."""

    def embed(self, request: SearchRequest) -> Queries:
        queries = super().embed(request)
        rows = choose_unrelated_rows(request.examples, queries.excluded_rows, len(self._space.base))
        every_query = torch.ones(len(rows), 1, dtype=torch.bool, device=rows.device)
        return substitute_with(self._space, request.require_index(), queries, rows, every_query)
