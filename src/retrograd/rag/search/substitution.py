"""Queries that search with another text than their own: as a control, and as wrong neighbours to learn from.

A substitute is a passage of the base, drawn at random. Neither that passage nor an equal one is found, so what is found
looks like retrieval, label frequencies and scores included, and knows nothing of the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from retrograd.index.index import Index
from retrograd.rag.search.queries import Queries
from retrograd.rag.search.search import SearchRequest, SearchSpace
from retrograd.types import Example, UserError
from retrograd.util.fingerprints import fingerprint

__all__ = ["distract", "mark_prior_only", "substitute_with", "unrelated_rows"]


def distract(space: SearchSpace, request: SearchRequest, queries: Queries) -> Queries:
    """Substitute the share of the queries that the request's ``distraction`` asks for, drawn by its ``rng``."""
    share, hidden, passages = request.options.distraction, queries.hidden, len(space.base)
    if share == 0:
        return queries
    where = _draw_share(len(hidden), share, request.rng).to(hidden.device)
    rows = torch.randint(passages, (len(hidden),), generator=request.rng).to(hidden.device)
    return substitute_with(space, request.require_index(), queries, _avoid(rows, hidden, passages), where)


def mark_prior_only(request: SearchRequest, queries: Queries) -> Queries:
    """Mark the share of the queries, drawn at random, that takes what the prior finds and nothing else."""
    share = request.options.prior_only
    if share == 0:
        return queries
    where = _draw_share(len(queries.hidden), share, request.rng)
    return replace(queries, is_prior_only=where.to(queries.prior.device))


def substitute_with(
    space: SearchSpace, index: Index, queries: Queries, rows: Int[Tensor, " B"], where: Bool[Tensor, "B 1"]
) -> Queries:
    """Search with the passages at ``rows`` in the place of the queries ``where``."""
    texts = [Example("", passage.text, ("",)) for passage in space.base.passages(rows.tolist())]
    side = space.side
    vectors = space.prior.as_queries(side.part(index.vectors(rows).float(), "prior")).detach()
    return queries.substitute(side.placed(vectors, "prior"), space.own_rows(texts), where)


def unrelated_rows(examples: Sequence[Example], hidden: Int[Tensor, "B E"], passages: int) -> Int[Tensor, " B"]:
    """A row of the base for each query, unrelated to it, the same at every call, and none of its ``hidden`` rows."""
    drawn = [int(fingerprint([example.query])[:12], 16) % passages for example in examples]
    return _avoid(torch.tensor(drawn, device=hidden.device), hidden, passages)


def _draw_share(queries: int, share: float, rng: torch.Generator | None) -> Bool[Tensor, "B 1"]:
    """Draw a ``share`` of the queries on average. Raises `UserError` without ``rng``, or for a share beyond [0, 1]."""
    if rng is None:
        raise UserError("a share of the queries is drawn at random and needs a source of randomness; pass rng")
    if not 0 <= share <= 1:
        raise UserError(f"the share is {share:g}; expected a share of the queries, from 0 to 1")
    return torch.rand(queries, 1, generator=rng) < share


def _avoid(rows: Int[Tensor, " B"], hidden: Int[Tensor, "B E"], passages: int) -> Int[Tensor, " B"]:
    """The next row that is not hidden, where there is one: at most E rows on."""
    for _ in range(hidden.shape[1]):
        rows = torch.where((rows.unsqueeze(-1) == hidden).any(dim=-1), (rows + 1) % passages, rows)
    return rows
