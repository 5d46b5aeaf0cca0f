"""Ways to find the candidates of a query: each search is one file.

From a query to its candidates a search by vectors goes four steps: `queries` embeds the query, and lists the rows that
it must not find; `dense` finds its nearest rows in the index, joins the rows that the options add, and scores all of
them as log p(z|x). `substitution` makes wrong neighbours, `bm25` needs no vectors, and `unrelated` and `oracle` are
controls. `search` is the contract.

A new search is a file and a line in `SEARCHES`; the contract tests run over that tuple.
"""

from retrograd.rag.search.bm25 import BM25
from retrograd.rag.search.dense import DENSE
from retrograd.rag.search.oracle import ORACLE
from retrograd.rag.search.search import (
    BEST_PASSAGES,
    GivenRowsSearch,
    RetrievalOptions,
    Search,
    SearchKind,
    SearchRequest,
    SearchSpace,
    require_index,
)
from retrograd.rag.search.unrelated import UNRELATED
from retrograd.types import UserError

__all__ = [
    "BEST_PASSAGES",
    "BM25",
    "DENSE",
    "ORACLE",
    "SEARCHES",
    "UNRELATED",
    "GivenRowsSearch",
    "RetrievalOptions",
    "Search",
    "SearchKind",
    "SearchRequest",
    "SearchSpace",
    "require_index",
    "search_kind",
]

SEARCHES: tuple[SearchKind, ...] = (DENSE, UNRELATED, BM25, ORACLE)
"""All searches; ``retriever.search`` names one of them."""


def search_kind(name: str) -> SearchKind:
    """Return the search of that name. Raises `UserError` if there is none."""
    for kind in SEARCHES:
        if kind.name == name:
            return kind
    names = ", ".join(repr(kind.name) for kind in SEARCHES)
    raise UserError(f"retriever.search is {name!r}; expected one of {names}")
