"""VRAG: the posterior retriever approximates the true posterior, and the loss bounds how far it is from it.

    maximise  Σ_z q(z|x,y) [log p(y|x,z) + log p(z|x) - log q(z|x,y)]  =  log p(y|x) - KL( q ‖ p(z|x,y) )

Over K candidates the sum is taken exactly: nothing is sampled, and q gets its gradient without a score-function
estimator.

Mishra et al. 2022, "Variational Learning for Unsupervised Knowledge Grounded Dialogs" (arXiv 2112.00653); the bound
itself: Jordan et al. 1999, "An Introduction to Variational Methods for Graphical Models".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_share
from retrograd.objectives.functional import ABSENT, cover, kl_p_q, log_marginal, masked_log_softmax, weighted_sum
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.scoring import (
    cost,
    describe,
    log_likelihood_where,
    mean_over_queries,
    prior_and_posterior,
)
from retrograd.types import UserError

__all__ = ["Variational"]


@dataclass(frozen=True)
class Variational:
    """The evidence lower bound over one set of candidates, or the published estimate over two.

    **Equation.** U are the candidates, q̃ is q renormalised over them. ``form="elbo"``: -Σ_U q̃ log p(y|x,z) +
    β Σ_U q̃ (log q̃ - log p(z|x)), p as given. ``form="published"``: -Σ_A q_A log p(y|x,z) + β KL(q̃ ‖ p̃) over U, A
    being the ``passages`` candidates of the highest q, q_A is q renormalised over A, p̃ is p renormalised over U.

    **Paper.** "published": Mishra et al. 2022 (arXiv 2112.00653), VRAG. "elbo": Jordan et al. 1999, §4; β: Higgins et
    al. 2017, "beta-VAE".

    **Bias.** "elbo", β = 1: below log Σ_U p(z|x) p(y|x,z) by exactly KL(q̃ ‖ π), π the responsibilities over U; a better
    q removes that, and at q̃ = π value and gradients of prior and generator are those of `TopKMarginal`. β > 1 lies
    lower still, so for every β ≥ 1 it is a lower bound on log p(y|x), provided that ``log_prior`` is normalised over
    the base; β < 1 is none. "published" is no bound at all, for two reasons. The two terms take their expectations
    under different distributions: q_A moves all weight onto A, so the reconstruction forgets the passages that explain
    the target badly, and the KL does not charge for the move. And p̃ forgets the mass the prior has wasted outside U.
    A = U removes the first, a prior that is normalised over the candidates anyway the second. ``kept_mass`` < 1 leaves
    passages holding at most 1 - ``kept_mass`` of the reconstruction's weights out of the generator's gradient, and out
    of nothing else.

    **Gradient.** Ascent, with a_k = log p(y|x,z_k) + β (log p(z_k|x) - log q̃_k): prior logits get β(q̃ - p)
    ("published": β(q̃ - p̃)) from the second term, posterior logits q̃_k (a_k - Σ_j q̃_j a_j) from both ("published": the
    first part of a_k counts under q_A, the second under q̃), the generator Σ_k q̃_k ∇ log p(y|x,z_k), over A and with q_A
    where published, from the first. β = 0 leaves the prior untrained.

    **Cost.** Generator forwards: K ("elbo") or |A| ("published") in all. The weights are known before anything is
    scored, so the heaviest that hold ``kept_mass`` of them are scored with gradient, and only the others without.

    **Padding.** A candidate whose ``log_prior`` or ``log_posterior`` is -inf is absent: not scored, no gradient. One
    under which the target is impossible (log-likelihood -inf) is left out of q̃ ("elbo") or q_A ("published"), or the
    loss would be infinite; the bound holds without it. Where the target is impossible under all that are scored, "elbo"
    has no term left and trains nothing, while "published" keeps its β KL(q̃ ‖ p̃), which does not read the target. A
    query without candidates adds 0 to the mean.

    Example::

        print(rg.Variational().needs_posterior)
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = True
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False
    mixes_tokens = False

    form: Literal["elbo", "published"] = "elbo"
    beta: float = 1.0
    passages: int = 5
    kept_mass: float = 0.99

    def __post_init__(self) -> None:
        check_choice(self, "form", self.form, ("elbo", "published"))
        if not (math.isfinite(self.beta) and self.beta >= 0.0):
            raise UserError(f"Variational: beta is {self.beta!r}; it must be a finite number of at least 0")
        check_count(self, "passages", self.passages)
        check_share(self, "kept_mass", self.kept_mass)

    @property
    def goal(self) -> Goal:
        """Return the evidence lower bound; the published form, and another β, maximise no bound."""
        return Goal.ELBO if self.form == "elbo" and self.beta == 1.0 else Goal.OTHER

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.form == "elbo"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the negative bound (or estimate), in nats. ``rng`` is not used.

        Raises `ValueError` when there is no ``log_posterior`` or when scores are not log-probabilities.
        """
        log_prior, log_posterior = prior_and_posterior(self, scores)
        is_chosen = self._choose_candidates(log_posterior.detach())
        log_likelihood, heaviest = self._score(likelihood, log_posterior.detach(), is_chosen)
        log_weight = masked_log_softmax(log_posterior.masked_fill(log_likelihood == ABSENT, ABSENT))
        log_q, log_p = log_weight, log_prior
        if self.form == "published":
            log_q, log_p = masked_log_softmax(log_posterior), masked_log_softmax(log_prior)
        # The weights carry the posterior's gradient and the log-likelihoods the generator's: one product gives both.
        per_query = weighted_sum(log_weight.exp(), log_likelihood) - self.beta * kl_p_q(log_q, log_p)
        log_evidence = log_marginal(log_p.detach(), log_likelihood.detach())
        shared = describe(log_weight.detach().exp(), log_prior, log_likelihood, log_evidence, log_posterior)
        # The weights are the posterior retriever itself: how far they are from it says nothing.
        diagnostics = {name: value for name, value in shared.items() if name != "kl_responsibilities_posterior"}
        return Estimate(-mean_over_queries(per_query), {**diagnostics, **_cost(is_chosen, heaviest, log_weight)})

    def _choose_candidates(self, log_posterior: Float[Tensor, "B K"]) -> Bool[Tensor, "B K"]:
        """Mark the candidates that reconstruct the target: all present, or the ``passages`` of the highest q."""
        present = log_posterior > ABSENT
        if self.form == "elbo":
            return present
        highest = log_posterior.argsort(dim=-1, descending=True, stable=True)[:, : self.passages]
        return torch.zeros_like(present).scatter(1, highest, True) & present

    def _score(
        self, likelihood: Likelihood, log_posterior: Float[Tensor, "B K"], is_chosen: Bool[Tensor, "B K"]
    ) -> tuple[Float[Tensor, "B K"], Bool[Tensor, "B K"]]:
        """Return log p(y|x,z) of the wanted candidates, each scored once, and which were scored with gradient."""
        weight = masked_log_softmax(log_posterior.masked_fill(~is_chosen, ABSENT)).exp()
        heaviest = cover(weight, self.kept_mass)
        with torch.no_grad():
            constant = log_likelihood_where(likelihood, is_chosen & ~heaviest)
        return torch.where(heaviest, log_likelihood_where(likelihood, heaviest), constant), heaviest


def _cost(
    is_chosen: Bool[Tensor, "B K"], heaviest: Bool[Tensor, "B K"], like: Float[Tensor, "B K"]
) -> dict[str, Float[Tensor, ""]]:
    """Return `cost` where none is scored twice, so that the saving is a share of all that are wanted."""
    prompts = is_chosen.sum(dim=-1)
    saving = (1.0 - heaviest.sum(dim=-1).to(like.dtype) / prompts.clamp(min=1)).masked_fill(prompts == 0, 0.0)
    return cost(is_chosen & ~heaviest, heaviest) | {"backward_saving": saving.mean()}
