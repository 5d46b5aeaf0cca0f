"""Embed a batch of queries, and list the rows that each must not find: the first step of a search by vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.rag.search.search import SearchSpace
from retrograd.types import Example, UserError

__all__ = ["Queries", "embed_queries"]


@dataclass(frozen=True)
class Queries:
    """B query embeddings, divided by their retriever's temperature, and the rows that each must not find.

    ``prior`` are the prior's own. The index is searched with ``search_embeddings``: the prior's, then the posterior's
    if it is asked for. ``excluded_rows`` are never found; -1 is padding. ``is_substituted`` marks the queries for which
    another text searches in the prior's place, ``is_prior_only`` those whose candidates the prior alone finds.
    """

    prior: Float[Tensor, "B D"]
    search_embeddings: tuple[Float[Tensor, "B D"], ...]
    excluded_rows: Int[Tensor, "B E"]
    is_substituted: Bool[Tensor, "B 1"] | None = None
    is_prior_only: Bool[Tensor, "B 1"] | None = None

    def substitute(
        self, vectors: Float[Tensor, "B D"], own_rows: Int[Tensor, "B E2"], where: Bool[Tensor, "B 1"]
    ) -> Queries:
        """Search with ``vectors`` for the queries ``where``, and exclude the ``own_rows`` of these vectors' texts."""
        prior, *rest = self.search_embeddings
        excluded_rows = torch.cat(
            [self.excluded_rows, own_rows.to(self.excluded_rows.device).masked_fill(~where, -1)], dim=1
        )
        return replace(
            self,
            search_embeddings=(torch.where(where, vectors, prior), *rest),
            excluded_rows=excluded_rows,
            is_substituted=where,
        )

    def detach_substituted(self, value: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """Detach rows whose candidates came from a substitute query or from the prior alone.

        Such candidates are no evidence of which passage explains the target.
        """
        for where in (self.is_substituted, self.is_prior_only):
            if where is not None:
                value = torch.where(where.view(-1, *[1] * (value.dim() - 1)), value.detach(), value)
        return value

    def mask_prior_only(self, rows: Int[Tensor, "B K"]) -> Int[Tensor, "B K"]:
        """Mask rows that the prior did not find, for the queries that take the prior's candidates alone."""
        return rows if self.is_prior_only is None else rows.masked_fill(self.is_prior_only, -1)

    def mask_previous(self, row: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Mask rows of chains that cannot be candidates now: excluded rows, and those of queries of the prior alone."""
        is_excluded = (row.unsqueeze(-1) == self.excluded_rows).any(dim=-1)
        return self.mask_prior_only(row.masked_fill(is_excluded, -1).unsqueeze(-1)).squeeze(-1)


def embed_queries(space: SearchSpace, examples: Sequence[Example], posterior: bool) -> Queries:
    """Embed a batch for the prior and, if asked for, for the posterior, which reads the target as well.

    Raises `UserError` if there is no posterior.
    """
    task, side = space.task, space.side
    prior = side.pad_to_row(space.prior.queries([task.query_text(example) for example in examples]), "prior")
    search_embeddings = (prior, _embed_for_posterior(space, examples)) if posterior else (prior,)
    return Queries(prior, search_embeddings, space.own_rows(examples).to(prior.device))


def _embed_for_posterior(space: SearchSpace, examples: Sequence[Example]) -> Float[Tensor, "B D"]:
    """Embed each query with its target, as the posterior reads it."""
    if space.posterior is None:
        raise UserError("this objective needs a posterior retriever; set retriever.posterior = true")
    texts = [space.task.posterior_text(example, example.target) for example in examples]
    return space.side.pad_to_row(space.posterior.queries(texts), "posterior")
