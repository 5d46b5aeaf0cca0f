"""Reweighted wake-sleep: draw passages from a proposal and weigh each by how much more the true posterior wants it.

    maximise  log p(y|x)   while minimising   KL( p(z|x,y) ‖ q(z|x,y) )

The goal of `JointStochasticApproximation`, with its weights estimated by self-normalised importance sampling instead
of a Markov chain.

Bornschein & Bengio 2015, "Reweighted Wake-Sleep" (arXiv 1406.2751); Le et al. 2019, "Revisiting Reweighted Wake-Sleep
for Models with Stochastic Control Flow" (arXiv 1805.10469).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_share
from retrograd.objectives.functional import (
    ABSENT,
    counts,
    defensive,
    importance_efficiency,
    masked_log_softmax,
    masked_logsumexp,
    propose,
    weighted_sum,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.scoring import (
    cost,
    describe,
    log_likelihood_where,
    mean_over_queries,
    mean_where,
    normalise,
    prior_and_posterior,
    pruned_sum,
)

__all__ = ["WakeSleep"]


@dataclass(frozen=True)
class _Weights:
    """Weights of the pass without gradient, the candidates it scored, and the importance estimate."""

    weight: Float[Tensor, "B K"]
    is_scored: Bool[Tensor, "B K"]
    log_likelihood: Float[Tensor, "B K"]
    log_evidence: Float[Tensor, " B"]
    efficiency: Float[Tensor, " B"]


@dataclass(frozen=True)
class WakeSleep:
    """Reweighted wake-sleep over the candidates, wake phases only: no passage is dreamt up from the model.

    **Equation.** Σ_k w_k [-log p(y|x,z_k) - log p(z_k|x) - log q(z_k|x,y)], w held constant. ``draws`` = n independent
    draws come from r = αq + (1-α)p, α = ``proposal_share``, q and p renormalised over the candidates; candidate k is
    drawn c_k times and has w_k = c_k ω_k / Σ_j c_j ω_j, ω_k = p(z_k|x) p(y|x,z_k) / r_k.

    **Paper.** Bornschein & Bengio 2015 (arXiv 1406.2751): the wake-phase updates of the model (θ: prior and generator)
    and of q (φ). Le et al. 2019 (arXiv 1805.10469) do without the sleep phase, as here. α < 1: Hesterberg 1995,
    defensive mixtures.

    **Bias.** With π the responsibilities over the candidates, E[w_k] - π_k = -(1/n) (π_k²/r_k - π_k Σ_j π_j²/r_j) +
    O(1/n²): twice the draws, half the bias, and none at r = π, whatever n. Where r is all but blind, the sum over j is
    huge and n draws never see the passage; α < 1 bounds π/r by π/((1-α) p̃). Passages outside the candidates are left
    out; ``normaliser="full"`` keeps the prior's and q's mass there in the equation, ``"candidates"`` renormalises both
    (see `TopKMarginal`); w is the same for both. ``kept_mass`` < 1 leaves passages holding at most 1 - ``kept_mass`` of
    w out of the generator's gradient, and out of nothing else. The diagnostic ``log_marginal`` is
    log (1/n) Σ_k c_k ω_k, the log of an unbiased estimate of Σ_k p(z_k|x) p(y|x,z_k): on average too low, by about half
    the variance of ω / E[ω] over n (Burda et al. 2016, arXiv 1509.00519).

    **Gradient.** Ascent: prior logits get w - p from the second term only, posterior logits w - q from the third only
    (p and q renormalised over the candidates with ``normaliser="candidates"``), the generator Σ_k w_k ∇ log p(y|x,z_k)
    from the first only. Nothing flows through w or through the draws.

    **Cost.** Generator forwards without gradient: the distinct columns drawn, at most min(n, K); then, with gradient,
    those of them that belong to the heaviest that hold ``kept_mass`` of w.

    **Padding.** A candidate whose ``log_prior`` or ``log_posterior`` is -inf is absent: never drawn, no gradient. A
    query without candidates adds 0 to the mean.

    Example::

        print(rg.WakeSleep().needs_posterior)
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.MARGINAL

    draws: int = 50
    proposal_share: float = 1.0
    normaliser: Literal["full", "candidates"] = "full"
    kept_mass: float = 0.99

    def __post_init__(self) -> None:
        check_count(self, "draws", self.draws)
        check_share(self, "proposal_share", self.proposal_share)
        check_choice(self, "normaliser", self.normaliser, ("full", "candidates"))
        check_share(self, "kept_mass", self.kept_mass)

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.normaliser == "full"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the weighted sum, in nats. ``rng`` draws the candidates.

        Raises `ValueError` when there is no ``log_posterior`` or when scores are not log-probabilities.
        """
        raw_log_prior, raw_log_posterior = prior_and_posterior(self, scores)
        log_prior = normalise(raw_log_prior, self.normaliser)
        log_posterior = normalise(raw_log_posterior, self.normaliser)
        with torch.no_grad():
            weights = self._weights(log_prior, log_posterior, likelihood, rng)
        per_query, heaviest = pruned_sum(likelihood, weights.weight, weights.log_likelihood, self.kept_mass)
        per_query = per_query + weighted_sum(weights.weight, log_prior) + weighted_sum(weights.weight, log_posterior)
        shared = describe(
            weights.weight, raw_log_prior, weights.log_likelihood, weights.log_evidence, raw_log_posterior
        )
        sampling = {"importance_efficiency": mean_where(weights.efficiency, weights.is_scored.any(dim=-1))}
        return Estimate(-mean_over_queries(per_query), {**shared, **sampling, **cost(weights.is_scored, heaviest)})

    def _weights(
        self,
        log_prior: Float[Tensor, "B K"],
        log_posterior: Float[Tensor, "B K"],
        likelihood: Likelihood,
        rng: torch.Generator,
    ) -> _Weights:
        """Compute weights without gradient: draw candidates, score and weigh them."""
        log_proposal = defensive(log_posterior, log_prior, self.proposal_share)
        times = counts(propose(log_proposal, self.draws, rng), log_proposal)
        log_likelihood = log_likelihood_where(likelihood, times > 0)
        log_omega = torch.where(log_likelihood > ABSENT, log_prior + log_likelihood - log_proposal, ABSENT)
        log_total = log_omega + times.log()  # draws of one column add up, so each distinct column stands here once
        log_evidence = masked_logsumexp(log_total) - math.log(self.draws)
        weight, efficiency = masked_log_softmax(log_total).exp(), importance_efficiency(log_omega, times)
        return _Weights(weight, times > 0, log_likelihood, log_evidence, efficiency)
