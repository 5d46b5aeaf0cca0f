"""Objectives that do not train the retriever, or use none: the controls of every joint result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Float, Int, Tensor, torch
from retrograd.objectives.checks import check_choice, check_log_likelihood
from retrograd.objectives.functional import (
    ABSENT,
    entropy,
    in_full_precision,
    log_marginal,
    masked_log_softmax,
    masked_logsumexp,
    responsibilities,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.scoring import (
    cost,
    describe,
    log_likelihood_where,
    log_represented_mass,
    mean_over_queries,
    mean_where,
    prior_alone,
)

__all__ = ["FrozenRetriever", "NoRetrieval"]


@dataclass(frozen=True)
class FrozenRetriever:
    """Only the generator learns: from the candidates one by one, or from all of them in one prompt.

    **Equation.** ``form="marginal"``: -log Σ_k p̃(z_k|x) p(y|x,z_k), p̃ being the prior renormalised over the
    candidates and held constant. ``form="together"``: -log p(y|x, z_1 … z_K), best prior first.

    **Paper.** "marginal": Lewis et al. 2020 (arXiv 2005.11401) §2.1 with a frozen retriever. "together" at K = 1:
    RAG4RE, Efeoglu & Paschke 2024 (arXiv 2404.13397; fine-tuned: 2406.14745). "together" at K > 1: the passage
    concatenation of JSA-RAG, Cao et al. 2025 (arXiv 2508.18168).

    **Bias.** None in the generator's gradient of the equation above; against log p(y|x) over the whole base,
    truncation to K. The retriever's gradient is zero by design: train it with another objective.

    **Gradient.** Prior logits and posterior logits get exactly nothing. The generator gets Σ_k π_k ∇ log p(y|x,z_k)
    ("marginal") or the gradient of the one prompt ("together").

    **Cost.** Generator forwards with gradient: K ("marginal") or one long one ("together"); none without gradient.

    **Padding.** An absent candidate (``-inf``) is neither scored nor concatenated. A query without candidates adds 0
    ("marginal") or is answered from the prompt without passages ("together").

    Example::

        print(rg.FrozenRetriever("together").trains_retriever)
    """

    trains_retriever = False
    trains_generator = True
    needs_posterior = False
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    needs_log_normaliser = False

    form: Literal["marginal", "together"] = "marginal"

    def __post_init__(self) -> None:
        check_choice(self, "form", self.form, ("marginal", "together"))

    @property
    def reads(self) -> Reads:
        """Passages are in one prompt with ``form="together"``, else in a prompt each."""
        return Reads.TOGETHER if self.form == "together" else Reads.SEPARATELY

    @property
    def goal(self) -> Goal:
        """Return the marginal, of which only the generator's part is taken; one prompt of all has another goal."""
        return Goal.OTHER if self.form == "together" else Goal.MARGINAL

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the negative log-likelihood in nats. ``rng`` is not used."""
        if self.form == "marginal":
            return self._marginal(log_represented_mass(scores).detach(), likelihood)
        return self._together(prior_alone(self, scores).detach(), likelihood)

    @staticmethod
    def _marginal(log_prior: Float[Tensor, "B K"], likelihood: Likelihood) -> Estimate:
        normalised = masked_log_softmax(log_prior)
        present = normalised > ABSENT
        log_likelihood = log_likelihood_where(likelihood, present)
        log_evidence = log_marginal(normalised, log_likelihood)
        weight = responsibilities(normalised, log_likelihood.detach())
        diagnostics = describe(weight, log_prior, log_likelihood, log_evidence)
        return Estimate(-mean_over_queries(log_evidence), {**diagnostics, **cost(None, present)})

    @staticmethod
    def _together(log_prior: Float[Tensor, "B K"], likelihood: Likelihood) -> Estimate:
        best_first, column = log_prior.sort(dim=-1, descending=True, stable=True)
        estimate = _one_prompt(likelihood, column.masked_fill(best_first == ABSENT, -1))
        present = (log_prior > ABSENT).any(dim=-1)
        retrieval = {
            "candidate_mass": mean_where(masked_logsumexp(log_prior).exp(), present),
            "prior_entropy": mean_where(entropy(masked_log_softmax(log_prior)), present),
            "empty_share": 1.0 - present.to(log_prior.dtype).mean(),
        }
        return Estimate(estimate.loss, estimate.diagnostics | retrieval)


@dataclass(frozen=True)
class NoRetrieval:
    """Closed book: the generator learns to answer without passages, through the same loop as everything else.

    **Equation.** -log p(y|x).

    **Paper.** None: the control without which no gain of retrieval can be claimed.

    **Bias.** None; it is another model, not an estimator of the retrieval model.

    **Gradient.** The generator gets ∇ log p(y|x); no retriever gets anything.

    **Cost.** One generator forward with gradient per query, of the shortest prompt there is; none without.

    **Padding.** The candidates are not looked at; a query without any is trained like all others.

    Example::

        print(rg.NoRetrieval().trains_retriever)
    """

    trains_retriever = False
    trains_generator = True
    needs_posterior = False
    reads = Reads.NOTHING
    selection = None
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.OTHER
    needs_log_normaliser = False

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the negative log-likelihood in nats. ``rng`` is not used."""
        no_columns = torch.empty((scores.log_prior.shape[0], 0), dtype=torch.long, device=scores.log_prior.device)
        return _one_prompt(likelihood, no_columns)


def _one_prompt(likelihood: Likelihood, column: Int[Tensor, "B M"]) -> Estimate:
    """Return -log p(y | x, passages of the columns), one forward with gradient per query."""
    log_likelihood = in_full_precision(likelihood.together(column))
    check_log_likelihood(log_likelihood)
    mean = mean_over_queries(log_likelihood)
    passes = mean.new_ones(())
    diagnostics = {
        "log_marginal": mean.detach(),
        "log_likelihood": mean.detach(),
        "generator_forwards": passes,
        "generator_backwards": passes,
    }
    return Estimate(-mean, diagnostics)
