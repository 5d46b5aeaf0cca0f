"""Search by the retriever, and what all searches by vectors share: how a query becomes its candidates.

`DenseSearch.candidates` is the whole way: embed the queries, find each one's nearest passages in the index, then
`make_candidates`: join what was found, add what the options ask for, and score it all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from retrograd.index.index import Index, Neighbours, can_sample
from retrograd.models.compute.precision import full_precision
from retrograd.objectives.functional import log_multiplicity
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import (
    NULL_ROW,
    Candidates,
    admitted,
    column_of,
    log_probability,
    union,
    whole_base,
)
from retrograd.rag.search.queries import Queries, embed_queries
from retrograd.rag.search.search import SearchKind, SearchRequest, SearchSpace
from retrograd.rag.search.substitution import distract, mark_prior_only
from retrograd.types import Example, UserError

__all__ = ["DENSE", "DenseSearch", "find_nearest", "make_candidates", "score_base", "score_rows"]

_NULL_TEXT = "(no passage)"


class DenseSearch:
    """The passages whose embeddings are nearest to the query's: what a retriever is trained for.

    Log-probabilities are over the whole base where the index knows log Z, with gradient for whatever the retrievers
    train.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def candidates(self, request: SearchRequest) -> Candidates:
        queries = embed_queries(self._space, request.examples, request.options.posterior)
        queries = mark_prior_only(request, distract(self._space, request, queries))
        neighbours = find_nearest(queries, request.require_index(), request.k)
        return make_candidates(self._space, request, queries, neighbours)

    def candidates_at(self, request: SearchRequest, rows: Int[Tensor, "B K"]) -> Candidates:
        index = request.require_index()
        queries = embed_queries(self._space, request.examples, request.options.posterior)
        return score_rows(self._space, index, queries, find_nearest(queries, index, 1), rows)

    def whole_base(self, request: SearchRequest) -> Candidates:
        queries = embed_queries(self._space, request.examples, request.options.posterior)
        return score_base(self._space, request.require_index(), queries)

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {}


DENSE = SearchKind(
    "nearest", DenseSearch, needs_index=True, has_vectors=True, trains_retriever=True, takes_other_rows=True
)


# ---- steps of every search by vectors --------------------------------------------------------------------------------


def find_nearest(queries: Queries, index: Index, k: int) -> list[Neighbours]:
    """Return the k nearest rows that are not hidden, for the prior's queries and then for the posterior's."""
    with full_precision(queries.prior.device):
        return [index.search(vectors, k, queries.hidden) for vectors in queries.searched]


def make_candidates(
    space: SearchSpace, request: SearchRequest, queries: Queries, neighbours: list[Neighbours]
) -> Candidates:
    """Make candidates of neighbours: join what was found, add what the options ask for, score it all.

    Rows that an example must not see are left out, wherever they come from. A row that comes twice is one candidate.
    """
    options, index, passages, device = request.options, request.require_index(), len(space.base), queries.prior.device
    blocks = [neighbours[0].row, *(queries.mask_prior_only(one.row) for one in neighbours[1:])]
    previous_row = None
    if request.previous_row is not None:
        previous_row = queries.mask_previous(request.previous_row.to(device))
        blocks.append(previous_row.unsqueeze(-1))
    if options.extra_rows is not None:
        blocks.append(admitted(options.extra_rows.to(device), queries.hidden, passages))
    rows = union(*blocks)
    if options.pool is not None:
        rows = admitted(options.pool.rows(rows, passages, request.rng), queries.hidden, passages)
    drawn = _draw_tail(queries, index, rows, options.tail, request.rng)
    rows = union(rows, drawn)
    if space.null_passage:
        rows = nn.functional.pad(rows, (0, 1), value=NULL_ROW)
    candidates = score_rows(space, index, queries, neighbours, rows)
    scores = candidates.scores
    if options.tail > 0:
        times = (rows.unsqueeze(-1) == drawn.unsqueeze(1)).sum(dim=-1).masked_fill(rows < 0, 0)
        scores = replace(scores, log_multiplicity=log_multiplicity(scores.log_prior, times.float()))
    previous = None if previous_row is None else column_of(rows, previous_row)
    return replace(candidates, scores=replace(scores, previous=previous))


def score_rows(
    space: SearchSpace, index: Index, queries: Queries, neighbours: list[Neighbours], rows: Int[Tensor, "B K"]
) -> Candidates:
    """Make candidates of given rows, with log p(z|x) and, where the posterior searched, log q(z|x,y).

    ``neighbours`` know log Z.
    """
    has_posterior = len(queries.searched) > 1
    (vectors, fresh), null = _embed_candidates(space, index, rows, has_posterior), _embed_null(space, has_posterior)
    with full_precision(rows.device):
        log_prior, *rest = [
            queries.detach_substituted(log_probability(query, vectors, rows, found, index, fresh, null))
            for query, found in zip(queries.searched, neighbours, strict=True)
        ]
    scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=space.prior.trained_temperature)
    query, vectors = (space.side.part(one, "prior") for one in (queries.prior, queries.detach_substituted(vectors)))
    return Candidates(rows, scores, query, vectors, queries.is_prior_only)


def score_base(space: SearchSpace, index: Index, queries: Queries) -> Candidates:
    """Make candidates of all rows that are not hidden. Memory O(B·N)."""
    device = queries.prior.device
    with full_precision(device):
        vectors = index.vectors(torch.arange(len(space.base), device=device))
        null = _embed_null(space, len(queries.searched) > 1)
        rows, (log_prior, *rest) = whole_base(queries.searched, queries.hidden, vectors, null)
    scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=space.prior.trained_temperature)
    return Candidates(rows, scores)


def _draw_tail(
    queries: Queries, index: Index, rows: Int[Tensor, "B K"], draws: int, rng: torch.Generator | None
) -> Int[Tensor, "B M"]:
    """Draw rows from the prior over everything that is neither retrieved already nor hidden: a second pass."""
    if draws == 0:
        return rows.new_empty(len(rows), 0)
    if not can_sample(index) or rng is None:
        raise UserError(
            "training.tail needs an exact index, from which rows can be sampled, and a source of randomness; set "
            "training.tail = 0"
        )
    with full_precision(rows.device):
        return index.sample(queries.searched[0], draws, rng, torch.cat([queries.hidden, rows], dim=-1))


def _embed_candidates(
    space: SearchSpace, index: Index, rows: Int[Tensor, "B K"], posterior: bool
) -> tuple[Float[Tensor, "B K D"], bool]:
    """Candidate embeddings, and whether they were just encoded with gradient: each distinct passage once."""
    if not space.side.learns or not torch.is_grad_enabled():
        return index.vectors(rows.clamp(min=-1)), False
    distinct, where = rows.clamp(min=0).unique(return_inverse=True)
    texts = [space.task.passage_text(passage) for passage in space.base.passages(distinct.tolist())]
    return space.side.passages(texts, posterior)[where], True


def _embed_null(space: SearchSpace, posterior: bool) -> Float[Tensor, " D"] | None:
    """The null passage, embedded anew at each retrieval, so that it is never stale; None where it is no candidate."""
    return space.side.no_passage(_NULL_TEXT, posterior) if space.null_passage else None
