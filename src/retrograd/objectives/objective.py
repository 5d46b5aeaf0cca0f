"""The contract between an objective and the rest of the house: records and protocols, nothing else.

An objective sees log-probabilities of K candidates and a *function* that scores (query, candidate) pairs under the
generator. It never sees a model. What an estimator costs can therefore be read in its own body.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

__all__ = ["CandidateScores", "Estimate", "Likelihood", "Objective", "TokenLogLikelihood"]


@dataclass(frozen=True)
class CandidateScores:
    """What the retrievers say of K candidates per query. Padding is ``-inf`` and behaves like absence.

    ``log_prior`` is log p(z|x), normalised over the whole knowledge base where the index is exact (a row then sums to
    at most 1), else over the candidates. ``log_posterior`` is log q(z|x,y), likewise. ``previous`` is the column where
    each query's Markov chain stood at its last visit, -1 where it has none.
    """

    log_prior: Float[Tensor, "B K"]
    log_posterior: Float[Tensor, "B K"] | None = None
    previous: Int[Tensor, " B"] | None = None


@dataclass(frozen=True)
class TokenLogLikelihood:
    """log p(y_t | x, z, y_<t) in nats; zero, and absent from ``present``, where a target has no token t."""

    value: Float[Tensor, "B M T"]
    present: Bool[Tensor, "B T"]


class Likelihood(Protocol):
    """The generator, bound to one batch. Columns index candidates; column -1 gives ``-inf`` and no gradient.

    Gradients follow torch's grad mode: under ``torch.no_grad()`` a call is a forward only.
    """

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """log p(y|x,z) in nats, summed over target tokens in fp32. Each distinct pair is scored once per call."""
        ...

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """The same per token, for RAG-token."""
        ...

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """log p(y|x, z_1 … z_M): the passages of the columns in one prompt. M = 0 is the generator without passages."""
        ...


@dataclass(frozen=True)
class Estimate:
    """``loss`` is to be differentiated and is the mean over queries; ``diagnostics`` are detached and to be read.

    ``last`` is the column where each query's chain stopped, for objectives that carry one.
    """

    loss: Float[Tensor, ""]
    diagnostics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    last: Int[Tensor, " B"] | None = None


class Objective(Protocol):
    """An estimator of the gradient of -log p(y|x). A value: settings in, no state."""

    needs_posterior: ClassVar[bool]

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate: ...
