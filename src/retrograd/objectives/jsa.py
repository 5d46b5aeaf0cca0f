"""JSA: retriever, posterior retriever and generator follow one set of weights, the posterior over passages.

    maximise  log p(y|x)   while minimising   KL( p(z|x,y) ‖ q(z|x,y) )

Both gradients are expectations under the true posterior p(z|x,y) ∝ p(z|x) p(y|x,z), so one set of weights w serves
prior, posterior and generator. Over K candidates w can be had exactly; the papers estimate it by Metropolis
independence sampling, with q as the proposal.

Ou & Song 2020, "Joint Stochastic Approximation and Its Application to Learning Discrete Latent Variable Models"
(arXiv 2005.14001); Cao et al. 2025, "JSA-RAG" (arXiv 2508.18168).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from retrograd.deferred import Bool, Float, Int, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_share
from retrograd.objectives.functional import (
    ABSENT,
    counts,
    defensive,
    draw_chain,
    log_marginal,
    metropolis_independence,
    responsibilities,
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
    prior_alone,
    prior_and_posterior,
    pruned_sum,
)

__all__ = ["JointStochasticApproximation"]


@dataclass(frozen=True)
class _Weights:
    """Weights of the pass without gradient, the candidates it scored, and the chain's state if any."""

    weight: Float[Tensor, "B K"]
    is_scored: Bool[Tensor, "B K"]
    log_likelihood: Float[Tensor, "B K"]
    acceptance: Float[Tensor, " B"] | None = None
    last: Int[Tensor, " B"] | None = None


@dataclass(frozen=True)
class JointStochasticApproximation:
    """Joint stochastic approximation over the candidates, with exact weights or with the papers' sampler.

    **Equation.** Σ_k w_k [-log p(y|x,z_k) - log p(z_k|x) - log q(z_k|x,y)], w held constant. ``sampler="exact"``:
    w = π, the responsibilities over the candidates. ``sampler="metropolis"``: w_k is the share of ``draws`` visits that
    a Metropolis independence chain pays to candidate k; it proposes from αq + (1-α)p, α = ``proposal_share``, both
    renormalised over the candidates, and accepts with min(1, ω'/ω), ω = p(z|x) p(y|x,z) / proposal.
    ``posterior=False`` does without q: the chain proposes from the prior, and the third term is gone.

    **Paper.** Ou & Song 2020 (arXiv 2005.14001), the JSA algorithm, which carries each example's chain from visit to
    visit; Cao et al. 2025 (arXiv 2508.18168), whose released code restarts it (``chain="cold"``).
    ``sampler="exact"`` is their limit of many draws.

    **Bias.** Both: passages outside the candidates are left out; ``normaliser="full"`` keeps the prior's and q's mass
    there in the equation, ``"candidates"`` renormalises both (see `TopKMarginal`). Metropolis, cold: the law of visit t
    is off by at most (1 - 1/M)^t in total variation, M = max π/proposal; more draws, a better q, ``proposal_share``
    below 1 (no blind spot of q stays unvisited) or ``chain="carried"`` remove it. The state from which a cold chain
    starts is never counted. ``kept_mass`` < 1 leaves passages holding at most 1 - ``kept_mass`` of w out of the
    generator's gradient, which so misses at most that share times the largest ‖∇ log p(y|x,z)‖; 1 removes that. Prior,
    posterior and the value of the loss are not touched by it.

    **Gradient.** Prior logits get w - p from the second term only, posterior logits w - q from the third only, the
    generator Σ_k w_k ∇ log p(y|x,z_k) from the first only (ascent). Nothing flows through w. With exact weights the
    prior and the generator get exactly the gradient of `TopKMarginal` where both passes give one log-likelihood. Under
    dropout they draw two masks, so that w belongs to another mask than ∇ log p(y|x,z_k).

    **Cost.** Generator forwards without gradient: K (exact), or the distinct columns among start and proposals
    (metropolis); then, with gradient, those of them that are visited and belong to the heaviest that hold ``kept_mass``
    of w.

    A carried chain is nearly unbiased with 2 draws; 50, the default, buy less variance with that many forwards at most.

    **Padding.** A candidate is absent if its ``log_prior``, or its ``log_posterior`` where one is used, is -inf: never
    scored or proposed, no gradient. A query without candidates adds 0 to the mean and its chain is -1 (cold).

    Example::

        print(rg.JointStochasticApproximation(sampler="metropolis", draws=20).needs_posterior)
    """

    trains_retriever = True
    trains_generator = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.MARGINAL

    sampler: Literal["exact", "metropolis"] = "exact"
    draws: int = 50
    chain: Literal["cold", "carried"] = "carried"
    normaliser: Literal["full", "candidates"] = "full"
    kept_mass: float = 0.99
    posterior: bool = True
    proposal_share: float = 1.0

    def __post_init__(self) -> None:
        check_choice(self, "sampler", self.sampler, ("exact", "metropolis"))
        check_count(self, "draws", self.draws)
        check_choice(self, "chain", self.chain, ("cold", "carried"))
        check_choice(self, "normaliser", self.normaliser, ("full", "candidates"))
        check_share(self, "kept_mass", self.kept_mass)
        check_share(self, "proposal_share", self.proposal_share)

    @property
    def needs_posterior(self) -> bool:
        """Return whether the candidates must come with log q(z|x,y)."""
        return self.posterior

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.normaliser == "full"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the weighted sum, in nats. ``rng`` is used by ``sampler="metropolis"`` only.

        Raises `ValueError` when there is no ``log_posterior`` although ``posterior`` is set, or when scores are not
        log-probabilities.
        """
        log_prior, log_posterior = self._scores(scores)
        with torch.no_grad():
            weights = self._weights(log_prior, log_posterior, scores.previous, likelihood, rng)
        per_query, heaviest = pruned_sum(likelihood, weights.weight, weights.log_likelihood, self.kept_mass)
        per_query = per_query + weighted_sum(weights.weight, normalise(log_prior, self.normaliser))
        if log_posterior is not None:
            per_query = per_query + weighted_sum(weights.weight, normalise(log_posterior, self.normaliser))
        diagnostics = self._diagnostics(weights, heaviest, log_prior.detach(), log_posterior)
        return Estimate(-mean_over_queries(per_query), diagnostics, last=weights.last)

    def _scores(self, scores: CandidateScores) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"] | None]:
        """Return checked scores in full precision, absent together; the posterior's are None where none is used."""
        log_multiplicity = scores.log_multiplicity
        if self.sampler == "exact":  # a chain would take a sampled candidate for one passage, and is refused below
            scores = replace(scores, log_multiplicity=None)
        if self.posterior:
            log_prior, log_posterior = prior_and_posterior(self, scores)
        else:
            log_prior, log_posterior = prior_alone(self, scores), None
        return log_prior if log_multiplicity is None else log_prior + log_multiplicity.detach(), log_posterior

    def _weights(
        self,
        log_prior: Float[Tensor, "B K"],
        log_posterior: Float[Tensor, "B K"] | None,
        previous: Int[Tensor, " B"] | None,
        likelihood: Likelihood,
        rng: torch.Generator,
    ) -> _Weights:
        """Compute weights without gradient: exact responsibilities, or the visits of a chain scored where it may go."""
        if self.sampler == "exact":
            present = log_prior > ABSENT
            log_likelihood = log_likelihood_where(likelihood, present)
            return _Weights(responsibilities(log_prior, log_likelihood), present, log_likelihood)
        proposed = log_prior if log_posterior is None else log_posterior
        log_proposal = defensive(proposed, log_prior, self.proposal_share)
        carried = previous if self.chain == "carried" else None
        draws = draw_chain(log_proposal, self.draws, carried, rng)
        reachable = counts(torch.cat([draws.start.unsqueeze(-1), draws.proposals], dim=-1), log_proposal) > 0
        log_likelihood = log_likelihood_where(likelihood, reachable)
        chain = metropolis_independence(log_prior + log_likelihood, log_proposal, draws)
        last = chain.last if self.chain == "carried" else None
        return _Weights(chain.share, reachable, log_likelihood, chain.acceptance, last)

    def _diagnostics(
        self,
        weights: _Weights,
        heaviest: Bool[Tensor, "B K"],
        log_prior: Float[Tensor, "B K"],
        log_posterior: Float[Tensor, "B K"] | None,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return `describe` and `cost`; where a chain ran, its acceptance, and a log marginal over what it scored."""
        log_evidence = log_marginal(normalise(log_prior, self.normaliser), weights.log_likelihood)
        shared = describe(weights.weight, log_prior, weights.log_likelihood, log_evidence, log_posterior)
        diagnostics = {**shared, **cost(weights.is_scored, heaviest)}
        if weights.acceptance is not None:
            diagnostics["acceptance"] = mean_where(weights.acceptance, weights.is_scored.any(dim=-1))
            diagnostics["distinct_proposals"] = weights.is_scored.sum(dim=-1).float().mean()
        return diagnostics
