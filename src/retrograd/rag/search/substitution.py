"""Substitute another text for a query's own: as a control, and for wrong neighbours to learn from.

A substitute is a passage of the base, drawn at random. Neither that passage nor an equal one is found, so the
candidates look like retrieved ones, label frequencies and scores included, and do not depend on the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from retrograd.index.protocol import Index
from retrograd.rag.search.queries import Queries
from retrograd.rag.search.search import SearchRequest, SearchSpace
from retrograd.types import Example, UserError
from retrograd.util.fingerprints import fingerprint

__all__ = ["choose_unrelated_rows", "distract", "mark_prior_only", "substitute_with"]


def distract(space: SearchSpace, request: SearchRequest, queries: Queries) -> Queries:
    """Substitute the share of the queries that the request's ``distraction`` asks for, drawn by its ``rng``."""
    share, excluded_rows, passages = request.options.distraction, queries.excluded_rows, len(space.base)
    if share == 0:
        return queries
    where = _draw_share(len(excluded_rows), share, request.rng).to(excluded_rows.device)
    rows = torch.randint(passages, (len(excluded_rows),), generator=request.rng).to(excluded_rows.device)
    return substitute_with(space, request.require_index(), queries, _next_allowed(rows, excluded_rows, passages), where)


def mark_prior_only(request: SearchRequest, queries: Queries) -> Queries:
    """Mark the share of the queries, drawn at random, that gets the prior's candidates alone."""
    share = request.options.prior_only
    if share == 0:
        return queries
    where = _draw_share(len(queries.excluded_rows), share, request.rng)
    return replace(queries, is_prior_only=where.to(queries.prior.device))


def substitute_with(
    space: SearchSpace, index: Index, queries: Queries, rows: Int[Tensor, " B"], where: Bool[Tensor, "B 1"]
) -> Queries:
    """Search with the passages at ``rows`` in the place of the queries ``where``."""
    texts = [Example("", passage.text, ("",)) for passage in space.base.passages(rows.tolist())]
    side = space.side
    vectors = space.prior.as_queries(side.part(index.vectors(rows).float(), "prior")).detach()
    return queries.substitute(side.pad_to_row(vectors, "prior"), space.own_rows(texts), where)


def choose_unrelated_rows(
    examples: Sequence[Example], excluded_rows: Int[Tensor, "B E"], passages: int
) -> Int[Tensor, " B"]:
    """Choose an unrelated row for each query: the same one at every call, and none of its ``excluded_rows``."""
    rows = [int(fingerprint([example.query])[:12], 16) % passages for example in examples]
    return _next_allowed(torch.tensor(rows, device=excluded_rows.device), excluded_rows, passages)


def _draw_share(queries: int, share: float, rng: torch.Generator | None) -> Bool[Tensor, "B 1"]:
    """Draw a ``share`` of the queries on average. Raises `UserError` without ``rng``, or for a share beyond [0, 1]."""
    if rng is None:
        raise UserError("a share of the queries is drawn at random and needs a source of randomness; pass rng")
    if not 0 <= share <= 1:
        raise UserError(f"the share is {share:g}; expected a share of the queries, from 0 to 1")
    return torch.rand(queries, 1, generator=rng) < share


def _next_allowed(rows: Int[Tensor, " B"], excluded_rows: Int[Tensor, "B E"], passages: int) -> Int[Tensor, " B"]:
    """Return the next row that is not excluded, where there is one within E rows."""
    for _ in range(excluded_rows.shape[1]):
        rows = torch.where((rows.unsqueeze(-1) == excluded_rows).any(dim=-1), (rows + 1) % passages, rows)
    return rows
