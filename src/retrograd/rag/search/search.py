"""The contract of a search: from a batch of queries to its candidates.

A new search is a file with a class, and an entry in `retrograd.rag.search_kinds.SEARCHES`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index
from retrograd.models.retriever import Retriever
from retrograd.rag.candidates import Candidates, Exclusions, Pool
from retrograd.rag.passage_side import PassageSide
from retrograd.tasks.task import Support, Task
from retrograd.types import Example, UserError

__all__ = [
    "BEST_PASSAGES",
    "GivenRowsSearch",
    "RetrievalOptions",
    "Search",
    "SearchRequest",
    "SearchSpace",
    "require_index",
]


@dataclass(frozen=True)
class SearchSpace:
    """The base that a search looks through, and the retrievers that it uses: fixed when a model is made.

    ``support`` is the task's test of which passages support a target, where it has one. With ``null_passage`` reading
    nothing is one more candidate of every query.
    """

    task: Task
    base: KnowledgeBase
    support: Support | None
    exclusions: Exclusions
    prior: Retriever
    posterior: Retriever | None = None
    null_passage: bool = False

    @property
    def device(self) -> torch.device:
        """The device of the candidates."""
        return self.prior.query_encoder.device

    @property
    def side(self) -> PassageSide:
        """The passage towers: one, or two where the posterior has its own."""
        return PassageSide.of(self.prior, self.posterior)

    def own_rows(self, examples: Sequence[Example]) -> Int[Tensor, "B E"]:
        """Return the rows that each example must not retrieve, because their text is its own; -1 is padding."""
        return self.exclusions.rows(examples)


@dataclass(frozen=True)
class RetrievalOptions:
    """Frozen options that add candidates to the prior's k best passages; by default nothing is added.

    ``posterior`` adds the posterior's k best. ``tail`` passages are drawn besides (with replacement) from the prior
    over all others, as the index holds it; they represent the tail: see `CandidateScores.log_multiplicity`. A
    ``tail_posterior_share`` α draws them from (1 - α) p + α q instead (`retrograd.rag.search.tail`). With a
    ``pool`` all queries share their candidates: see `Pool`. A share of the queries, ``distraction``, gets the
    candidates of an unrelated passage; another, ``prior_only``, has the prior's candidates alone, and scores without
    gradient. ``extra_rows`` (-1 is padding) are candidates that another index found, such as `LexicalIndex`.

    Where the index cannot know log Z over the base but estimates it (`EstimableIndex`), ``normaliser_draws`` rows drawn
    uniformly, as many of the best and all candidates are what it is estimated from. With 0 log-probabilities are then
    over the candidates.
    """

    posterior: bool = False
    tail: int = 0
    pool: Pool | None = None
    distraction: float = 0.0
    prior_only: float = 0.0
    extra_rows: Int[Tensor, "B _"] | None = None
    normaliser_draws: int = 0
    tail_posterior_share: float = 0.0


BEST_PASSAGES = RetrievalOptions()
"""The prior's k best passages and nothing else."""


@dataclass(frozen=True)
class SearchRequest:
    """A batch of examples, and what a search should find for it.

    ``index`` holds the embeddings of the base; None before there is one. ``previous_row`` is the row of each query's
    Markov chain (-1 if it has none yet). ``rng`` is needed by options that draw.
    """

    examples: Sequence[Example]
    k: int
    index: Index | None = None
    options: RetrievalOptions = BEST_PASSAGES
    previous_row: Int[Tensor, " B"] | None = None
    rng: torch.Generator | None = None

    def require_index(self) -> Index:
        """Return the index. Raises `UserError` where there is none yet."""
        return require_index(self.index)


def require_index(index: Index | None) -> Index:
    """Return the index of a model. Raises `UserError` where it has none yet."""
    if index is None:
        raise UserError("the model has no index yet; call refresh_index() first")
    return index


@runtime_checkable
class Search(Protocol):
    """A search finds the candidates of queries in one `SearchSpace`, never a passage with the query's own text.

    Options that a search does not use are ignored; `SearchKind` declares which these are.
    """

    def candidates(self, request: SearchRequest) -> Candidates:
        """Return the k best passages of each query, with whatever the request's options add."""
        ...

    def whole_base(self, request: SearchRequest) -> Candidates:
        """Return every passage of the base as a candidate, in row order, -1 where a query must not find it."""
        ...

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        """Return scores of the search itself on some examples, in percent by name; empty for most searches."""
        ...


@runtime_checkable
class GivenRowsSearch(Search, Protocol):
    """A search that can also score given rows."""

    def candidates_at(self, request: SearchRequest, rows: Int[Tensor, "B K"]) -> Candidates:
        """Return the given rows as candidates, scored as ``candidates`` would score them."""
        ...
