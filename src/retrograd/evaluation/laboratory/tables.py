"""One batch at fixed parameters, as tables: what the laboratory measures estimators on, and what they draw from.

A gradient estimator meets the models in three places: the log-probabilities of the prior retriever, those of the
posterior retriever, and the generator's log-likelihoods. With the parameters fixed, all three are tables. Thousands of
independent draws of an estimator then cost no forward pass, and the exact answer can be summed up beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.objectives.functional import (
    log_marginal,
    masked_log_softmax,
    masked_logsumexp,
    put_back,
    responsibilities,
    take,
    weighted_sum,
)
from retrograd.objectives.objective import CandidateScores, Goal, TokenLogLikelihood
from retrograd.types import UserError

__all__ = [
    "Gradients",
    "JointPrompts",
    "Tables",
    "TabulatedLikelihood",
    "candidate_scores",
    "to_logits",
    "union_of_best",
]


@runtime_checkable
class JointPrompts(Protocol):
    """Scores of prompts that hold several passages, which no table can list. Columns are those of the tables."""

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]: ...

    def at_mixture(self, weight: Float[Tensor, "B R K"], column: Int[Tensor, "B K"]) -> Float[Tensor, " B"]: ...


@dataclass(frozen=True)
class Gradients:
    """A gradient of the loss at the three places, one block per query: with respect to the prior's logits, the
    posterior's logits, and the log-likelihood of every target token under every passage.
    """

    prior: Float[Tensor, "B U"]
    posterior: Float[Tensor, "B U"] | None
    generator: Float[Tensor, "B U T"]


@dataclass(frozen=True)
class Tables:
    """The log-probabilities of U reference passages per query, from which the exact gradient is computed.

    ``log_prior`` and ``log_posterior`` are normalised over the whole base.

    ``whole_base`` says whether the U passages are all there are. If not, the reference is that of these passages, and
    a gradient's part on the others (-p(z|x) times its sum over the U) is left out.

    ``prompt`` numbers the distinct prompts of a query: passages worded alike are one to the generator, and its gradient
    is compared per prompt (None: all differ). ``null`` says that the last column is the null passage, which every
    estimator has among its candidates. ``supports`` is the task's cheap test of the targets, where it has one, and
    ``temperature`` that of the prior.
    """

    log_prior: Float[Tensor, "B U"]
    log_posterior: Float[Tensor, "B U"] | None
    token_log_likelihood: Float[Tensor, "B U T"]
    present: Bool[Tensor, "B T"]
    whole_base: bool
    joint_prompts: JointPrompts | None = None
    prompt: Int[Tensor, "B U"] | None = None
    null: bool = False
    supports: Bool[Tensor, "B U"] | None = None
    temperature: Float[Tensor, ""] | None = None

    @property
    def queries(self) -> int:
        return len(self.log_prior)

    @property
    def log_likelihood(self) -> Float[Tensor, "B U"]:
        """log p(y|x,z) in nats, -inf where there is no passage."""
        return self._summed(self.token_log_likelihood)

    def _summed(self, tokens: Float[Tensor, "B U T"]) -> Float[Tensor, "B U"]:
        """Return the sum over the tokens of the targets, -inf where there is no passage."""
        summed = tokens.masked_fill(~self.present.unsqueeze(1), 0.0).sum(dim=-1)
        return summed.masked_fill(self.log_prior == -torch.inf, -torch.inf)

    def exact(self) -> Gradients:
        """Return the gradients of -log p(y|x) and, for the posterior retriever, KL(p(z|x,y) ‖ q): p - π, q - π, -π."""
        weight = responsibilities(self.log_prior, self.log_likelihood)
        posterior = None if self.log_posterior is None else self.log_posterior.exp() - weight
        generator = -weight.unsqueeze(-1) * self.present.unsqueeze(1)
        return Gradients(self.log_prior.exp() - weight, posterior, self.per_prompt(generator))

    def exact_for(self, goal: Goal) -> Gradients:
        """Return the gradients of minus another goal than the marginal, by enumeration. Raises `ValueError` for a goal
        that cannot be enumerated.
        """
        log_prior = self.log_prior.clone().requires_grad_()
        log_posterior = None if self.log_posterior is None else self.log_posterior.clone().requires_grad_()
        tokens = self.token_log_likelihood.clone().requires_grad_()
        leaves = [log_prior, tokens] + ([] if log_posterior is None else [log_posterior])
        with torch.enable_grad():
            value = self._value(goal, log_prior, log_posterior, tokens)
            prior, generator, *posterior = torch.autograd.grad(-value.sum(), leaves, allow_unused=True)
        every = torch.arange(self.log_prior.shape[1]).expand_as(self.log_prior)
        every = every.masked_fill(self.log_prior == -torch.inf, -1)
        return Gradients(
            to_logits(prior, self.log_prior, every),
            None if self.log_posterior is None else to_logits(posterior[0], self.log_posterior, every),
            self.per_prompt(generator),
        )

    def _value(
        self,
        goal: Goal,
        log_prior: Float[Tensor, "B U"],
        log_posterior: Float[Tensor, "B U"] | None,
        tokens: Float[Tensor, "B U T"],
    ) -> Float[Tensor, " B"]:
        """Return the goal of each query. Over a part of the base it is that of the objective with these candidates:
        expectations are over the prior renormalised there.
        """
        log_likelihood, log_mixture = self._summed(tokens), masked_log_softmax(log_prior)
        match goal:
            case Goal.TOKEN_MARGINAL:
                per_token = masked_logsumexp((log_mixture.unsqueeze(-1) + tokens).transpose(1, 2))
                return masked_logsumexp(log_prior) + per_token.masked_fill(~self.present, 0.0).sum(dim=-1)
            case Goal.EXPECTED_LOG_LIKELIHOOD:
                return weighted_sum(log_mixture.exp(), log_likelihood)
            case Goal.EXPECTED_LIKELIHOOD:
                return log_marginal(log_mixture, log_likelihood).exp()
            case Goal.ELBO if log_posterior is not None:
                log_q = masked_log_softmax(log_posterior)
                return weighted_sum(
                    log_q.exp(), log_likelihood + log_prior - log_q.masked_fill(log_q == -torch.inf, 0.0)
                )
            case _:
                raise ValueError(f"the gradient of {goal!r} is not enumerated here")

    def per_prompt(self, gradient: Float[Tensor, "RB U T"]) -> Float[Tensor, "RB U T"]:
        """Return a gradient in the log-likelihoods, summed over the passages of each prompt, in the prompt's place."""
        if self.prompt is None:
            return gradient
        place = self.prompt.repeat(len(gradient) // self.queries, 1).unsqueeze(-1).expand_as(gradient)
        return torch.zeros_like(gradient).scatter_add(1, place, gradient)

    def best(self, k: int, with_posterior: bool) -> Int[Tensor, "B K"]:
        """Return the columns of the k best of the prior, and of the posterior if asked for, and the null passage's."""
        blocks = [self.log_prior]
        if with_posterior and self.log_posterior is not None:
            blocks.append(self.log_posterior)
        return union_of_best(blocks, k, self.null)


def union_of_best(blocks: list[Float[Tensor, "B U"]], k: int, null: bool = False) -> Int[Tensor, "B K"]:
    """Return the columns that are among the k best of any block, ascending, padded with -1; with ``null`` the last one
    too.
    """
    is_best = torch.zeros_like(blocks[0], dtype=torch.bool)
    passages = blocks[0].shape[1] - null
    for block in blocks:
        best = block[:, :passages].topk(min(k, passages), dim=-1)
        is_best.scatter_(1, best.indices, True)
    is_best[:, passages:] = True
    is_best &= blocks[0] > -torch.inf
    width = max(int(is_best.sum(dim=-1).max()), 1)
    order = (~is_best).to(torch.uint8).argsort(dim=-1, stable=True)[:, :width]
    return order.masked_fill(~is_best.gather(1, order), -1)


class TabulatedLikelihood:
    """`Likelihood` read from tables, for R copies of the batch (copy after copy), with its prompts counted.

    ``columns`` are the candidates, as columns of the tables. Gradients arrive in ``tokens`` [RB K T].
    """

    def __init__(self, tables: Tables, columns: Int[Tensor, "RB K"], copies: int) -> None:
        self._tables = tables
        self._columns = columns
        query = torch.arange(len(columns)).remainder(tables.queries).unsqueeze(-1)
        self.tokens = tables.token_log_likelihood[query, columns.clamp(min=0)].requires_grad_()
        self._present = tables.present.repeat(copies, 1)

    def at(self, column: Int[Tensor, "RB M"]) -> Float[Tensor, "RB M"]:
        """Return log p(y|x,z) in nats; column -1 gives ``-inf``."""
        return self._tokens_at(column).sum(dim=-1).masked_fill(column < 0, -torch.inf)

    def tokens_at(self, column: Int[Tensor, "RB M"]) -> TokenLogLikelihood:
        """Return `at` per token."""
        value = self._tokens_at(column).masked_fill((column < 0).unsqueeze(-1), -torch.inf)
        return TokenLogLikelihood(value.masked_fill(~self._present.unsqueeze(1), 0.0), self._present)

    def _tokens_at(self, column: Int[Tensor, "RB M"]) -> Float[Tensor, "RB M T"]:
        index = column.clamp(min=0).unsqueeze(-1).expand(-1, -1, self.tokens.shape[2])
        return self.tokens.gather(1, index).masked_fill(~self._present.unsqueeze(1), 0.0)

    def together(self, column: Int[Tensor, "RB M"]) -> Float[Tensor, " RB"]:
        """Score by the generator itself, each distinct prompt once, without gradient for the generator."""
        columns = take_columns(self._columns, column)
        distinct, where = torch.cat(
            [torch.arange(len(columns)).remainder(self._tables.queries).unsqueeze(-1), columns], dim=-1
        ).unique(dim=0, return_inverse=True)
        value = columns.new_zeros(len(distinct), dtype=self.tokens.dtype)
        prompts = self._joint_prompts()
        for occurrence in _rounds(distinct[:, 0]):
            block = columns.new_full((self._tables.queries, columns.shape[1]), -1)
            block[distinct[occurrence, 0]] = distinct[occurrence, 1:]
            value[occurrence] = prompts.together(block)[distinct[occurrence, 0]].to(value.dtype)
        return value[where]

    def at_mixture(self, weight: Float[Tensor, "RB R K"]) -> Float[Tensor, " RB"]:
        """Score by the generator itself, differentiable in ``weight``."""
        prompts, batch = self._joint_prompts(), self._tables.queries
        parts = zip(weight.split(batch), self._columns.split(batch), strict=True)
        return torch.cat([prompts.at_mixture(part.float(), column) for part, column in parts]).to(weight.dtype)

    def supports_at(self, column: Int[Tensor, "RB M"]) -> Bool[Tensor, "RB M"]:
        """Return the result of the task's cheap test from its table; False at column -1."""
        if self._tables.supports is None:
            raise UserError(
                "the task has no cheap test of support; leave objectives that need one out of the laboratory"
            )
        columns = take_columns(self._columns, column)
        query = torch.arange(len(columns)).remainder(self._tables.queries).unsqueeze(-1)
        return self._tables.supports[query, columns.clamp(min=0)] & (columns >= 0)

    def _joint_prompts(self) -> JointPrompts:
        if self._tables.joint_prompts is None:
            raise ValueError("this objective reads several passages in one prompt; tables alone cannot answer that")
        return self._tables.joint_prompts


def take_columns(columns: Int[Tensor, "B K"], candidates: Int[Tensor, "B M"]) -> Int[Tensor, "B M"]:
    """Return the columns of the tables behind chosen candidates; -1 stays -1."""
    return columns.gather(1, candidates.clamp(min=0)).masked_fill(candidates < 0, -1)


def _rounds(query: Int[Tensor, " n"]) -> list[Int[Tensor, " m"]]:
    """Return positions in groups that hold each query at most once, as few groups as can be. ``query`` is ascending."""
    query = query.contiguous()
    first = torch.searchsorted(query, query)
    rank = torch.arange(len(query)) - first
    return [(rank == r).nonzero().flatten() for r in range(int(rank.max()) + 1)]


def candidate_scores(
    tables: Tables, columns: Int[Tensor, "RB K"], copies: int, previous: Int[Tensor, " RB"] | None
) -> CandidateScores:
    """Return leaves for the retrievers' log-probabilities of the candidates, for R copies of the batch."""

    def leaf(value: Float[Tensor, "B U"]) -> Float[Tensor, "RB K"]:
        return take(value.repeat(copies, 1), columns).requires_grad_()

    posterior = None if tables.log_posterior is None else leaf(tables.log_posterior)
    return CandidateScores(leaf(tables.log_prior), posterior, previous, temperature=tables.temperature)


def to_logits(
    gradient: Float[Tensor, "B K"] | None, log_probability: Float[Tensor, "B U"], columns: Int[Tensor, "B K"]
) -> Float[Tensor, "B U"]:
    """Turn a gradient in the candidates' log-probabilities into one in all U logits: g - p Σ g."""
    if gradient is None:
        return torch.zeros_like(log_probability)
    safe = gradient.masked_fill(columns < 0, 0.0)
    wide = put_back(safe, columns, log_probability.shape[1])
    return wide.masked_fill(wide == -torch.inf, 0.0) - log_probability.exp() * safe.sum(dim=-1, keepdim=True)
