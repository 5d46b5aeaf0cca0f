"""Search by the retriever, and the steps that all searches by vectors share: from a query to its candidates.

`VectorSearch.candidates`, which `retrograd.rag.indexed_model.IndexedModel.retrieve` calls, has all steps:

1. `embed_queries` embeds the queries and lists the rows that each must not find;
2. `distract` substitutes unrelated passages for a share of the queries, and `mark_prior_only` marks the share that gets
   the prior's candidates alone (neither does anything unless the options ask for it);
3. `find_nearest` searches the index for each query's nearest rows, and its log Z;
4. `make_candidates` joins these rows with those that the options add, without excluded ones (`_join_rows`); it adds
   rows drawn from the tail (`draw_tail`), with their multiplicities, and the null passage where there is one;
   `_estimate_log_z` estimates log Z, where the index does not know it;
5. `score_rows`, which it calls, embeds the candidates, anew where passages are trained, and gives log p(z|x) and
   log q(z|x,y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from retrograd.index.estimated import estimate_log_normaliser
from retrograd.index.protocol import Index, Neighbours, has_estimated_log_z
from retrograd.models.compute.precision import full_precision
from retrograd.objectives.objective import CandidateScores
from retrograd.rag.candidates import (
    NULL_ROW,
    Candidates,
    find_column,
    log_probability,
    mask_excluded_rows,
    union,
    whole_base,
)
from retrograd.rag.search.queries import Queries, embed_queries
from retrograd.rag.search.search import SearchRequest, SearchSpace
from retrograd.rag.search.substitution import distract, mark_prior_only
from retrograd.rag.search.tail import draw_tail, weigh_tail
from retrograd.types import Example

__all__ = ["DenseSearch", "VectorSearch", "find_nearest", "score_base"]

_NULL_TEXT = "(no passage)"


class VectorSearch:
    """The steps of a search by vectors, in terms of `embed` and `find`, which searches define anew where they differ.

    Log-probabilities are over the whole base where the index knows log Z, or estimates it as the options ask, with
    gradient for whatever the retrievers train.
    """

    def __init__(self, space: SearchSpace) -> None:
        self._space = space

    def embed(self, request: SearchRequest) -> Queries:
        """Return the vectors to search with, and the rows that each query must not find."""
        return embed_queries(self._space, request.examples, request.options.posterior)

    def find(self, request: SearchRequest, queries: Queries, k: int) -> list[Neighbours]:
        """Return the k best rows, for the prior's queries and then for the posterior's."""
        return find_nearest(queries, request.require_index(), k)

    def candidates(self, request: SearchRequest) -> Candidates:
        queries = mark_prior_only(request, self.embed(request))
        return make_candidates(self._space, request, queries, self.find(request, queries, request.k))

    def candidates_at(self, request: SearchRequest, rows: Int[Tensor, "B K"]) -> Candidates:
        queries = self.embed(request)
        nearest = _estimate_log_z(request, queries, self.find(request, queries, 1), rows)
        return score_rows(self._space, request.require_index(), queries, nearest, rows)

    def whole_base(self, request: SearchRequest) -> Candidates:
        return score_base(self._space, request.require_index(), self.embed(request))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {}


class DenseSearch(VectorSearch):
    """The search by a retriever: a query's candidates are the passages with the nearest embeddings."""

    def embed(self, request: SearchRequest) -> Queries:
        return distract(self._space, request, super().embed(request))


# ---- steps of every search by vectors --------------------------------------------------------------------------------


def find_nearest(queries: Queries, index: Index, k: int) -> list[Neighbours]:
    """Return the k nearest rows that are not excluded, for the prior's queries and then for the posterior's."""
    with full_precision(queries.prior.device):
        return [index.search(vectors, k, queries.excluded_rows) for vectors in queries.search_embeddings]


def make_candidates(
    space: SearchSpace, request: SearchRequest, queries: Queries, neighbours: list[Neighbours]
) -> Candidates:
    """Make candidates of neighbours: join their rows with those that the options add, and score all of them.

    Rows that an example must not see are left out, wherever they come from. A row that comes twice is one candidate.
    """
    index, previous_row = request.require_index(), None
    if request.previous_row is not None:
        previous_row = queries.mask_previous(request.previous_row.to(queries.prior.device))
    rows = _join_rows(space, request, queries, neighbours, previous_row)
    tail_rows = draw_tail(request, queries, neighbours, rows)
    rows = union(rows, tail_rows)
    neighbours = _estimate_log_z(request, queries, neighbours, rows)
    if space.null_passage:
        rows = nn.functional.pad(rows, (0, 1), value=NULL_ROW)
    candidates = score_rows(space, index, queries, neighbours, rows)
    scores = candidates.scores
    if request.options.tail > 0:
        log_multiplicity = weigh_tail(request, queries, neighbours, rows, tail_rows)
        scores = replace(scores, log_multiplicity=log_multiplicity)
    previous = None if previous_row is None else find_column(rows, previous_row)
    return replace(candidates, scores=replace(scores, previous=previous))


def _join_rows(
    space: SearchSpace,
    request: SearchRequest,
    queries: Queries,
    neighbours: list[Neighbours],
    previous_row: Int[Tensor, " B"] | None,
) -> Int[Tensor, "B K"]:
    """Join the prior's and the posterior's rows, the rows of chains, extra rows and those of a pool."""
    options, passages, device = request.options, len(space.base), queries.prior.device
    prior, *others = [nearest.row for nearest in neighbours]
    blocks = [prior, *map(queries.mask_prior_only, others)]
    if previous_row is not None:
        blocks.append(previous_row.unsqueeze(-1))
    if options.extra_rows is not None:
        blocks.append(mask_excluded_rows(options.extra_rows.to(device), queries.excluded_rows, passages))
    rows = union(*blocks)
    if options.pool is None:
        return rows
    return mask_excluded_rows(options.pool.rows(rows, passages, request.rng), queries.excluded_rows, passages)


def score_rows(
    space: SearchSpace, index: Index, queries: Queries, neighbours: list[Neighbours], rows: Int[Tensor, "B K"]
) -> Candidates:
    """Make candidates of given rows, with log p(z|x) and, if the posterior searched as well, log q(z|x,y).

    ``neighbours`` give log Z.
    """
    has_posterior = len(queries.search_embeddings) > 1
    (vectors, fresh), null = _embed_candidates(space, index, rows, has_posterior), _embed_null(space, has_posterior)
    with full_precision(rows.device):
        log_prior, *rest = [
            queries.detach_substituted(log_probability(query, vectors, rows, nearest, index, fresh, null))
            for query, nearest in zip(queries.search_embeddings, neighbours, strict=True)
        ]
    scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=space.prior.trained_temperature)
    query = space.side.part(queries.prior, "prior")
    vectors = space.side.part(queries.detach_substituted(vectors), "prior")
    errors = tuple(nearest.log_z_error for nearest in neighbours if nearest.log_z_error is not None)
    return Candidates(rows, scores, query, vectors, queries.is_prior_only, errors)


def score_base(space: SearchSpace, index: Index, queries: Queries) -> Candidates:
    """Make candidates of all rows that are not excluded. Memory O(B·N)."""
    device = queries.prior.device
    with full_precision(device):
        vectors = index.vectors(torch.arange(len(space.base), device=device))
        null = _embed_null(space, len(queries.search_embeddings) > 1)
        rows, (log_prior, *rest) = whole_base(queries.search_embeddings, queries.excluded_rows, vectors, null)
    scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=space.prior.trained_temperature)
    return Candidates(rows, scores)


def _estimate_log_z(
    request: SearchRequest, queries: Queries, neighbours: list[Neighbours], rows: Int[Tensor, "B K"]
) -> list[Neighbours]:
    """Give neighbours an estimated log Z, where the options ask for it and the index can only estimate it.

    The candidates ``rows`` are among the rows that are counted, not drawn: they never hold more than Ẑ. Raises
    `ValueError` without a source of randomness.
    """
    index, draws = request.require_index(), request.options.normaliser_draws
    if draws == 0 or not has_estimated_log_z(index):
        return neighbours
    if request.rng is None:
        raise ValueError(f"log Z is estimated from {draws} rows drawn at random; pass rng")
    with full_precision(rows.device):
        estimated: list[Neighbours] = []
        for query, nearest in zip(queries.search_embeddings, neighbours, strict=True):
            best = index.search(query, draws, queries.excluded_rows).row
            known = torch.cat([best, rows.clamp(min=-1)], dim=-1)
            estimate = estimate_log_normaliser(index, query, known, draws, request.rng, queries.excluded_rows)
            estimated.append(replace(nearest, log_normaliser=estimate.value, log_z_error=estimate.standard_error))
    return estimated


def _embed_candidates(
    space: SearchSpace, index: Index, rows: Int[Tensor, "B K"], posterior: bool
) -> tuple[Float[Tensor, "B K D"], bool]:
    """Return candidate embeddings, and whether they were just encoded with gradient: each distinct passage once."""
    if not space.side.has_gradient or not torch.is_grad_enabled():
        return index.vectors(rows.clamp(min=-1)), False
    distinct, where = rows.clamp(min=0).unique(return_inverse=True)
    texts = [space.task.passage_text(passage) for passage in space.base.passages(distinct.tolist())]
    return space.side.passages(texts, posterior)[where], True


def _embed_null(space: SearchSpace, posterior: bool) -> Float[Tensor, " D"] | None:
    """Embed the null passage, anew at each retrieval, so that it is never stale; None if it is not a candidate."""
    return space.side.no_passage(_NULL_TEXT, posterior) if space.null_passage else None
