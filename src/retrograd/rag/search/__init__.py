"""Ways to find the candidates of a query: each search is one file.

From a query to its candidates a search by vectors goes four steps: `queries` embeds the query, and lists the rows that
it must not find; `dense` finds its nearest rows in the index, joins the rows that the options add, and scores all of
them as log p(z|x). `substitution` makes wrong neighbours, `bm25` needs no vectors, and `unrelated` and `oracle` are
controls. `search` is the contract.

A new search is a file here and an entry in `retrograd.rag.search_kinds.SEARCHES`; the contract tests run over that
tuple.
"""

from retrograd.rag.search.search import (
    BEST_PASSAGES,
    GivenRowsSearch,
    RetrievalOptions,
    Search,
    SearchRequest,
    SearchSpace,
    require_index,
)

__all__ = [
    "BEST_PASSAGES",
    "GivenRowsSearch",
    "RetrievalOptions",
    "Search",
    "SearchRequest",
    "SearchSpace",
    "require_index",
]
