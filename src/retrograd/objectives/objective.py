"""The contract between an objective and the rest of the package: records and protocols, nothing else.

An objective sees log-probabilities of K candidates and a *function* that scores (query, candidate) pairs under the
generator. It never sees a model. What an estimator costs can therefore be read in its own body.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from retrograd.deferred import Bool, Float, Int, Tensor, torch

if TYPE_CHECKING:
    from retrograd.objectives.differentiable_knn import Selection

__all__ = ["CandidateScores", "Estimate", "Goal", "Likelihood", "Objective", "Reads", "TokenLogLikelihood"]


@dataclass(frozen=True)
class CandidateScores:
    """Scores that the retrievers give K candidates per query. Padding is ``-inf`` and behaves like absence.

    ``log_prior`` is log p(z|x), normalised over the whole knowledge base where log Z is known or estimated (a row then
    sums to at most 1), else over the candidates. ``log_posterior`` is log q(z|x,y), likewise. ``previous`` is the
    column where each query's Markov chain stood at its last visit, -1 where it has none.

    ``log_multiplicity`` is the log of how many passages each candidate stands for: 0 for a passage that was retrieved
    and stands for itself, log((1-r(C)) / (m r)) for one of m draws from a proposal r, such as the prior, outside the
    retrieved ones, of which it holds the mass r(C) (`functional.log_multiplicity`). Constant. With it a sum over the
    candidates is an unbiased estimate of the sum over the base. Objectives that cannot use it refuse it.

    ``temperature`` is the T of the prior, log p(z|x) = similarity / T - log Z, with gradient where it is learned:
    T·log_prior is the similarity itself, less a constant per query. None where there is no such scale; objectives that
    need one then take T = 1.
    """

    log_prior: Float[Tensor, "B K"]
    log_posterior: Float[Tensor, "B K"] | None = None
    previous: Int[Tensor, " B"] | None = None
    log_multiplicity: Float[Tensor, "B K"] | None = None
    temperature: Float[Tensor, ""] | None = None


@dataclass(frozen=True)
class TokenLogLikelihood:
    """Value of log p(y_t | x, z, y_<t) in nats; ``present`` marks where a target has a token t.

    ``value`` is not read elsewhere; it should be zero there. Column -1 is ``-inf`` throughout.
    """

    value: Float[Tensor, "B M T"]
    present: Bool[Tensor, "B T"]


@runtime_checkable
class Likelihood(Protocol):
    """The generator, bound to one batch. Columns index candidates; column -1 gives ``-inf`` and no gradient.

    Gradients follow torch's grad mode: under ``torch.no_grad()`` a call is a forward only.
    """

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        """Return log p(y|x,z) in nats, summed over target tokens in fp32. Each distinct pair is scored once a call."""
        ...

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        """Return log p(y_t|x,z,y_<t) in nats per target token, for RAG-token."""
        ...

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        """Return log p(y|x, z_1 … z_M): the passages of the columns in one prompt. M = 0 is without passages."""
        ...

    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        """Return log p(y|x, R soft slots) in nats: slot r holds Σ_k weight[r, k] · (passage k as generator input).

        One prompt per query. Differentiable in ``weight``, which is how a relaxed selection gets its gradient. A weight
        of exactly 0 is absence (its passage receives no gradient), a slot of zeros holds nothing.
        """
        ...

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        """Return whether candidates support the target by the task's own cheap test; False at column -1. No prompt.

        Raises `UserError` where the task has no such test.
        """
        ...


@dataclass(frozen=True)
class Estimate:
    """Result of an objective: ``loss``, the mean over queries, with gradient; ``diagnostics``, detached, to be read.

    ``last`` is the column where each query's chain stopped (-1: it has none), for objectives that carry one.

    A diagnostic has the same name and meaning in every objective, and is left out where it has none. Costs are
    means over all queries, the rest over those that have a usable candidate. "Over the candidates" says that a
    distribution was renormalised there.

    =============================  ===================================================================================
    log_marginal                   log p(y|x) in nats as the objective models it (all)
    log_likelihood                 Σ w log p(y|x,z) in nats, w being the weights the objective trains with (all)
    candidate_mass                 Σ p(z|x) as given: how much of the prior over the base the candidates hold (with
                                   candidates sampled from the tail, what they stand for: 1, on average where the
                                   prior was not what they were drawn from)
    prior_entropy                  of p(z|x) over the candidates, nats; near 0 is collapse, near log K is indifference
    posterior_entropy              of q(z|x,y) over the candidates, nats
    responsibility_entropy         of w, nats
    effective_sample_size          1 / Σ w², in passages (of a soft slot: the mean over slots)
    importance_efficiency          (Σ ω)² / (n Σ ω²), ω the importance weights of n draws: 1 where the posterior draws
    effective_neighbours           1 / Σ w̄², w̄ the mean of a query's slots: how many passages they hold together
    slot_similarity                mean cosine between the weights of two slots of a query: 1 when all slots are alike
    vote                           Σ p(z|x) [z supports y] over the candidates that vote: what kNN gives the target
    unsupported_share              share of queries of which no candidate that votes supports the target
    kl_responsibilities_prior      KL(w ‖ p) over the candidates, nats: what the target tells about the passage
    kl_responsibilities_posterior  KL(w ‖ q) over the candidates, nats: how far the posterior retriever is off
    acceptance                     share of a chain's proposals that were accepted
    distinct_proposals             columns a chain could visit, per query
    generator_forwards             what the generator scored, with and without gradient, per query (all): candidates
                                   (those worded alike count each, though run once) and prompts of several passages
    generator_backwards            those of them that were scored with gradient, per query (all)
    backward_saving                share of the distinct candidates scored whose backward pass was pruned (all)
    empty_share                    share of queries without any usable candidate; they add 0 to the loss
    =============================  ===================================================================================
    """

    loss: Float[Tensor, ""]
    diagnostics: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    last: Int[Tensor, " B"] | None = None


class Reads(StrEnum):
    """Ways that passages reach the generator: each in its own prompt, several in one, in soft slots, or not at all.

    An enumeration, so that an objective can state it as ``reads = Reads.SEPARATELY``. Members equal their texts.
    """

    SEPARATELY = "separately"
    TOGETHER = "together"
    SLOTS = "slots"
    NOTHING = "nothing"


class Goal(StrEnum):
    """The quantity that an objective maximises for a query, where it is a sum over passages that can be enumerated.

    An objective over K candidates, or with few draws, estimates the gradient of its goal over the whole base. ``OTHER``
    is every goal that reads several passages in one prompt, teaches by other targets, or depends on a setting or a
    number of draws. Members equal their texts.
    """

    MARGINAL = "log Σ_z p(z|x) p(y|x,z)"
    TOKEN_MARGINAL = "Σ_t log Σ_z p(z|x) p(y_t|x,z,y_<t)"
    EXPECTED_LOG_LIKELIHOOD = "Σ_z p(z|x) log p(y|x,z)"
    EXPECTED_LIKELIHOOD = "Σ_z p(z|x) p(y|x,z)"
    ELBO = "Σ_z q(z|x,y) log[p(z|x) p(y|x,z) / q(z|x,y)]"
    OTHER = "other"


@runtime_checkable
class Objective(Protocol):
    """An estimator of the gradient of -log p(y|x). A value: settings in, no state.

    The attributes are class constants, or properties where a setting decides. They are the only things that the rest
    of the package asks of an objective: no other module may ask for its class or for a setting.
    """

    @property
    def trains_retriever(self) -> bool:
        """Return whether the loss has a gradient in ``log_prior``. It is False for the controls."""
        ...

    @property
    def trains_generator(self) -> bool:
        """Return whether the loss has a gradient in the likelihood."""
        ...

    @property
    def needs_posterior(self) -> bool:
        """Return whether ``scores.log_posterior`` must be given."""
        ...

    @property
    def reads(self) -> Reads:
        """Return how passages reach the generator in training, in the prompts that it learns from.

        A model that was trained separately or together answers in the same way, and where the generator does not
        learn, this says only how it answers. For soft slots see `selection`.
        """
        ...

    @property
    def selection(self) -> Selection | None:
        """Return how the trained model fills soft slots when it answers, or None where passages are read as text.

        An objective that samples its slots answers from the most likely ones: nothing is drawn.
        """
        ...

    @property
    def leaves_one_out(self) -> bool:
        """Return whether each candidate also takes a call of `Likelihood.together` with all the other candidates.

        The number of calls then depends on the candidates, so that several processes may need different numbers.
        """
        ...

    @property
    def mixes_tokens(self) -> bool:
        """Return whether the generator's distributions of each token are mixed over passages that are read separately.

        The trained model then answers by Π_t Σ_z p̃(z|x) p(y_t|x,z,y_<t), p̃ over the passages that it reads, and else
        by Σ_z p̃(z|x) Π_t p(y_t|x,z,y_<t).
        """
        ...

    @property
    def goal(self) -> Goal:
        """Return what is maximised. The laboratory takes the gradient of that as a second reference."""
        ...

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior learns from ``log_prior`` as normalised over the base, not over the candidates.

        Its retriever then cannot be trained over an index without log Z.
        """
        ...

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate: ...
