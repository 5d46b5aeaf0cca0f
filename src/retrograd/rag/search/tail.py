r"""Candidates that are drawn from the tail, all that was neither retrieved nor excluded, and stand for all of it.

With the retrieved passages C, a proposal r over the base and m draws from it outside C,

.. math:: \sum_{k \in C} p_k L_k + \frac{1 - r(C)}{m} \sum_{j=1}^{m} \frac{p_j L_j}{r_j}

is unbiased for :math:`\sum_k p_k L_k` over the base, whatever C and r are, as long as r is above 0 wherever p·L is (Liu
et al. 2019, arXiv 1810.04777). Its variance is least with r ∝ p·L, which is the posterior p(z|x,y). Here
r = (1 - α) p + α q, with α the ``tail_posterior_share``: for α = 0 it does not know the target, and the weights of all
candidates sum to 1; for α > 0 the posterior retriever aims it, and since r ≥ (1 - α) p no weight exceeds 1 / (1 - α)
times what it would be.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.protocol import Index, Neighbours, can_sample
from retrograd.models.compute.precision import full_precision
from retrograd.objectives.functional import log1mexp, log_multiplicity, masked_logsumexp
from retrograd.rag.candidates import log_probability
from retrograd.rag.search.queries import Queries
from retrograd.rag.search.search import SearchRequest
from retrograd.types import UserError

__all__ = ["draw_tail", "weigh_tail"]


@torch.no_grad()
def draw_tail(
    request: SearchRequest, queries: Queries, neighbours: list[Neighbours], rows: Int[Tensor, "B K"]
) -> Int[Tensor, "B M"]:
    """Draw rows from the proposal over all that are neither retrieved (``rows``) nor excluded.

    One more pass over the index, or two with a posterior's share. Raises `UserError` for an index that cannot sample,
    without a source of randomness, and for a posterior's share without a posterior.
    """
    index, draws, rng = request.require_index(), request.options.tail, request.rng
    share = request.options.tail_posterior_share
    if draws == 0:
        return rows.new_empty(len(rows), 0)
    if not can_sample(index) or rng is None:
        raise UserError(
            "training.tail needs an exact index, from which rows can be sampled, and a source of randomness; set "
            "training.tail = 0"
        )
    if share > 0 and len(queries.search_embeddings) == 1:
        raise UserError(
            f"training.tail_posterior_share is {share:g}, and no posterior searches; set it to 0, or take an objective "
            f"with a posterior"
        )
    outside = torch.cat([queries.excluded_rows, rows], dim=-1)
    with full_precision(rows.device):
        drawn = index.sample(queries.search_embeddings[0], draws, rng, outside)
        if share == 0:
            return drawn
        by_posterior = index.sample(queries.search_embeddings[1], draws, rng, outside)
        # Outside C, r is a mixture of p and q outside C, which have the weights (1 - α)(1 - p(C)) and α(1 - q(C)).
        log_rest = [
            log1mexp(masked_logsumexp(_stored_log_probability(index, queries, neighbours, rows, retriever)))
            for retriever in (0, 1)
        ]
        weight = torch.sigmoid(math.log(share) - math.log1p(-share) + log_rest[1] - log_rest[0]).nan_to_num(0.0)
        uniform = torch.rand(drawn.shape, generator=rng, device=rng.device).to(drawn.device)
    is_by_posterior = uniform < weight.unsqueeze(-1)
    if queries.is_prior_only is not None:
        is_by_posterior &= ~queries.is_prior_only
    return torch.where(is_by_posterior, by_posterior, drawn)


@torch.no_grad()
def weigh_tail(
    request: SearchRequest,
    queries: Queries,
    neighbours: list[Neighbours],
    rows: Int[Tensor, "B K"],
    drawn: Int[Tensor, "B M"],
) -> Float[Tensor, "B K"]:
    """Return log of how many passages each candidate stands for, ``drawn`` from the tail or retrieved.

    By the embeddings in the index, which the tail was drawn from: the candidates' own are newer where passages are
    trained, and weights by them would be of other draws.
    """
    index, share = request.require_index(), request.options.tail_posterior_share
    times = (rows.unsqueeze(-1) == drawn.unsqueeze(1)).sum(dim=-1).masked_fill(rows < 0, 0)
    with full_precision(rows.device):
        proposal = log_prior = _stored_log_probability(index, queries, neighbours, rows, 0)
        if share > 0:
            log_posterior = _stored_log_probability(index, queries, neighbours, rows, 1)
            proposal = torch.logaddexp(log_prior + math.log1p(-share), log_posterior + math.log(share))
        if share > 0 and queries.is_prior_only is not None:
            proposal = torch.where(queries.is_prior_only, log_prior, proposal)
    return log_multiplicity(proposal, times.float())


def _stored_log_probability(
    index: Index, queries: Queries, neighbours: list[Neighbours], rows: Int[Tensor, "B K"], retriever: int
) -> Float[Tensor, "B K"]:
    """Return log p(z|x) of the prior (0) or of the posterior (1) by the embeddings in the index; ``-inf`` for what it
    has not.
    """
    known = rows.clamp(min=-1)
    vectors = index.vectors(known)
    query, nearest = queries.search_embeddings[retriever], neighbours[retriever]
    return log_probability(query, vectors, known, nearest, index, fresh=False)
