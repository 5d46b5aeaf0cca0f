"""The searches that an experiment may name in ``retriever.search``, and what each can do.

Settings are checked by what a search can do, before anything is imported that could search: so each entry imports its
class when a model opens it. A new search is a class in a file of `retrograd.rag.search`, and an entry in `SEARCHES`;
the contract tests run over that tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.rag.search.search import Search, SearchSpace

__all__ = ["BM25", "DENSE", "ORACLE", "SEARCHES", "UNRELATED", "SearchKind", "search_kind"]


@dataclass(frozen=True)
class SearchKind:
    """A way to search: its ``name`` in an experiment, what ``open`` makes of a space, and what it can do.

    ===================  ===========================================================================================
    needs_index          it searches embeddings of the base, so the base is embedded first
    has_vectors          candidates come with query and passage vectors, which soft slots, pools, tails and the null
                         passage need
    trains_retriever     its scores have gradient, so a retriever, and a posterior beside it, may learn from them
    takes_other_rows     rows may join its candidates: a pool's, a tail's, those of distracted queries
    is_control           it is for comparison only: its candidates are unrelated, or chosen by the target
    reads_target         it reads the target, at test time too
    ===================  ===========================================================================================
    """

    name: str
    open: Callable[[SearchSpace], Search]
    needs_index: bool
    has_vectors: bool
    trains_retriever: bool
    takes_other_rows: bool
    is_control: bool = False
    reads_target: bool = False


def _open_dense(space: SearchSpace) -> Search:
    from retrograd.rag.search.dense import DenseSearch

    return DenseSearch(space)


DENSE = SearchKind(
    "nearest", _open_dense, needs_index=True, has_vectors=True, trains_retriever=True, takes_other_rows=True
)


def _open_unrelated(space: SearchSpace) -> Search:
    from retrograd.rag.search.unrelated import UnrelatedSearch

    return UnrelatedSearch(space)


UNRELATED = SearchKind(
    "random",
    _open_unrelated,
    needs_index=True,
    has_vectors=True,
    trains_retriever=False,
    takes_other_rows=True,
    is_control=True,
)


def _open_bm25(space: SearchSpace) -> Search:
    from retrograd.rag.search.bm25 import Bm25Search

    return Bm25Search(space)


BM25 = SearchKind(
    "bm25", _open_bm25, needs_index=False, has_vectors=False, trains_retriever=False, takes_other_rows=False
)


def _open_oracle(space: SearchSpace) -> Search:
    from retrograd.rag.search.oracle import OracleSearch

    return OracleSearch(space)


ORACLE = SearchKind(
    "oracle",
    _open_oracle,
    needs_index=True,
    has_vectors=True,
    trains_retriever=False,
    takes_other_rows=False,
    is_control=True,
    reads_target=True,
)


SEARCHES: tuple[SearchKind, ...] = (DENSE, UNRELATED, BM25, ORACLE)
"""All searches; ``retriever.search`` names one of them."""


def search_kind(name: str) -> SearchKind:
    """Return the search of that name. Raises `UserError` if there is none."""
    for kind in SEARCHES:
        if kind.name == name:
            return kind
    names = ", ".join(repr(kind.name) for kind in SEARCHES)
    raise UserError(f"retriever.search is {name!r}; expected one of {names}")
