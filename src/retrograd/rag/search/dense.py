"""Search by the retriever, and the steps that all searches by vectors share: from a query to its candidates.

`VectorSearch.candidates`, which `retrograd.rag.indexed_model.IndexedModel.retrieve` calls, has all steps:

1. `embed_queries` embeds the queries and lists the rows that each must not find;
2. `distract` substitutes unrelated passages for a share of the queries, and `mark_prior_only` marks the share that gets
   the prior's candidates alone (neither does anything unless the options ask for it);
3. `find_nearest` searches the index for each query's nearest rows, and its log Z;
4. `make_candidates` joins these rows with those that the options add, without excluded ones (`_join_rows`); it adds
   rows drawn from the tail (`_draw_tail`), with their multiplicities, and the null passage where there is one;
5. `score_rows`, which it calls, embeds the candidates, anew where passages are trained, and gives log p(z|x) and
   log q(z|x,y).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from retrograd.index.protocol import Index, Neighbours, can_sample
from retrograd.models.compute.precision import full_precision
from retrograd.objectives.functional import log_multiplicity
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
from retrograd.rag.search.search import SearchKind, SearchRequest, SearchSpace
from retrograd.rag.search.substitution import distract, mark_prior_only
from retrograd.types import Example, UserError

__all__ = ["DENSE", "DenseSearch", "VectorSearch", "find_nearest", "score_base"]

_NULL_TEXT = "(no passage)"


class VectorSearch:
    """The steps of a search by vectors, in terms of `embed` and `find`, which searches define anew where they differ.

    Log-probabilities are over the whole base where the index knows log Z, with gradient for whatever the retrievers
    train.
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
        return score_rows(self._space, request.require_index(), queries, self.find(request, queries, 1), rows)

    def whole_base(self, request: SearchRequest) -> Candidates:
        return score_base(self._space, request.require_index(), self.embed(request))

    def scores(self, examples: Sequence[Example]) -> dict[str, float]:
        return {}


class DenseSearch(VectorSearch):
    """The search by a retriever: a query's candidates are the passages with the nearest embeddings."""

    def embed(self, request: SearchRequest) -> Queries:
        return distract(self._space, request, super().embed(request))


DENSE = SearchKind(
    "nearest", DenseSearch, needs_index=True, has_vectors=True, trains_retriever=True, takes_other_rows=True
)


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
    tail_rows = _draw_tail(queries, index, rows, request.options.tail, request.rng)
    rows = union(rows, tail_rows)
    if space.null_passage:
        rows = nn.functional.pad(rows, (0, 1), value=NULL_ROW)
    candidates = score_rows(space, index, queries, neighbours, rows)
    scores = candidates.scores
    if request.options.tail > 0:
        times = (rows.unsqueeze(-1) == tail_rows.unsqueeze(1)).sum(dim=-1).masked_fill(rows < 0, 0)
        stored = _stored_log_prior(index, queries, neighbours[0], rows)
        scores = replace(scores, log_multiplicity=log_multiplicity(stored, times.float()))
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
    return Candidates(rows, scores, query, vectors, queries.is_prior_only)


def score_base(space: SearchSpace, index: Index, queries: Queries) -> Candidates:
    """Make candidates of all rows that are not excluded. Memory O(B·N)."""
    device = queries.prior.device
    with full_precision(device):
        vectors = index.vectors(torch.arange(len(space.base), device=device))
        null = _embed_null(space, len(queries.search_embeddings) > 1)
        rows, (log_prior, *rest) = whole_base(queries.search_embeddings, queries.excluded_rows, vectors, null)
    scores = CandidateScores(log_prior, rest[0] if rest else None, temperature=space.prior.trained_temperature)
    return Candidates(rows, scores)


def _draw_tail(
    queries: Queries, index: Index, rows: Int[Tensor, "B K"], draws: int, rng: torch.Generator | None
) -> Int[Tensor, "B M"]:
    """Draw rows from the prior over all that are neither retrieved nor excluded: a second pass over the index."""
    if draws == 0:
        return rows.new_empty(len(rows), 0)
    if not can_sample(index) or rng is None:
        raise UserError(
            "training.tail needs an exact index, from which rows can be sampled, and a source of randomness; set "
            "training.tail = 0"
        )
    with full_precision(rows.device):
        return index.sample(queries.search_embeddings[0], draws, rng, torch.cat([queries.excluded_rows, rows], dim=-1))


@torch.no_grad()
def _stored_log_prior(
    index: Index, queries: Queries, nearest: Neighbours, rows: Int[Tensor, "B K"]
) -> Float[Tensor, "B K"]:
    """Return log p(z|x) by the embeddings in the index, which the tail was drawn from; ``-inf`` for what it has not.

    The candidates' own embeddings are newer where passages are trained: weights by them would be of other draws.
    """
    with full_precision(rows.device):
        vectors = index.vectors(rows.clamp(min=-1))
        return log_probability(queries.search_embeddings[0], vectors, rows.clamp(min=-1), nearest, index, fresh=False)


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
