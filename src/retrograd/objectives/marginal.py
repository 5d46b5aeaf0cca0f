"""RAG: the likelihood of the target, marginalised over the retrieved candidates. Nothing is sampled.

    maximise  log p(y|x) = log Σ_z p(z|x) p(y|x,z),   the sum cut to K candidates

Lewis et al. 2020, "Retrieval-Augmented Generation for Knowledge-Intensive NLP Tasks" (arXiv 2005.11401), §2.1.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_choice, check_log_likelihood
from retrograd.objectives.functional import (
    ABSENT,
    columns_where,
    in_full_precision,
    log_marginal,
    masked_log_softmax,
    masked_logsumexp,
    put_back,
    responsibilities,
    take,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.scoring import (
    cost,
    describe,
    log_likelihood_where,
    log_represented_mass,
    mean_over_queries,
    normalise,
)

__all__ = ["TopKMarginal"]


@dataclass(frozen=True)
class TopKMarginal:
    """Vanilla RAG, and its better twin with the normaliser of the whole knowledge base.

    **Equation.** Sequence form: -log Σ_k p(z_k|x) p(y|x,z_k).
    Token form: -log c - Σ_t log Σ_k p̃(z_k|x) p(y_t|x,z_k,y_<t), p̃ being the prior renormalised over the candidates and
    c = Σ_k p(z_k|x) the prior's mass on them. With ``normaliser="candidates"`` p is p̃ everywhere and c is 1.

    **Paper.** Lewis et al. 2020 (arXiv 2005.11401) §2.1, "RAG-Sequence" and "RAG-Token", both with
    ``normaliser="candidates"``; ``"full"`` takes ``log_prior`` as the index gives it.

    **Bias.** Passages outside the candidates are left out; larger K, or candidates that know the target, remove that.
    So do candidates sampled from the tail (``log_multiplicity``), up to the bias of the log of an unbiased sum, O(1/m).
    ``"candidates"`` also hides from the prior how much mass it wastes on the rest of the base: it is not a bound on
    log p(y|x) and pushes the candidates up only against each other. ``"full"`` is a lower bound on log p(y|x), exact at
    K = N, provided that ``log_prior`` is normalised over the base. The token form is another model, not another
    estimator. Cut to K candidates, it would pay log c once per target token, T times for one retrieval, as if every
    other passage gave every word the probability zero; here log c is paid once. Then T = 1 agrees with the sequence
    form and K = N is exact, but for T > 1 and c < 1 the token form is no bound.

    **Gradient.** Prior logits get π - p (ascent; token form: Σ_t (π_t - p̃) + (p̃ - p)), the generator Σ_k π_k ∇ log
    p(y|x,z_k), through the one term there is. There is no posterior.

    **Cost.** Generator forwards: K with gradient, none without.

    **Padding.** A candidate with ``log_prior`` -inf is absent: not scored, no gradient. An absent target token adds 0.
    A query without candidates adds 0 to the mean.

    Example::

        print(rg.TopKMarginal(normaliser="candidates"))
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = False
    reads = Reads.SEPARATELY
    selection = None
    leaves_one_out = False

    form: Literal["sequence", "token"] = "sequence"
    normaliser: Literal["full", "candidates"] = "full"

    def __post_init__(self) -> None:
        check_choice(self, "form", self.form, ("sequence", "token"))
        check_choice(self, "normaliser", self.normaliser, ("full", "candidates"))

    @property
    def mixes_tokens(self) -> bool:
        """Return whether passages are mixed token by token."""
        return self.form == "token"

    @property
    def goal(self) -> Goal:
        """Return the marginal of the target, or of each of its tokens."""
        return Goal.TOKEN_MARGINAL if self.form == "token" else Goal.MARGINAL

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.normaliser == "full"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the negative log marginal, in nats. ``rng`` is not used."""
        log_represented = log_represented_mass(scores)
        log_prior = normalise(log_represented, self.normaliser)
        present = log_prior > ABSENT
        if self.form == "sequence":
            log_likelihood = log_likelihood_where(likelihood, present)
            log_evidence = log_marginal(log_prior, log_likelihood)
        else:
            log_evidence, log_likelihood = self._token_form(log_prior, present, likelihood)
        weight = responsibilities(log_prior.detach(), log_likelihood.detach())
        diagnostics = describe(weight, log_represented, log_likelihood, log_evidence)
        return Estimate(-mean_over_queries(log_evidence), {**diagnostics, **cost(None, present)})

    @staticmethod
    def _token_form(
        log_prior: Float[Tensor, "B K"], present: Bool[Tensor, "B K"], likelihood: Likelihood
    ) -> tuple[Float[Tensor, " B"], Float[Tensor, "B K"]]:
        """Return log c + Σ_t log Σ_k p̃_k p(y_t|z_k), and for diagnostics the log-likelihood of each candidate."""
        column = columns_where(present)
        tokens = likelihood.tokens_at(column)
        value = in_full_precision(tokens.value)
        check_log_likelihood(value)
        log_mixture = take(masked_log_softmax(log_prior), column)
        per_token = masked_logsumexp((log_mixture.unsqueeze(-1) + value).transpose(1, 2))
        log_evidence = masked_logsumexp(log_prior) + per_token.masked_fill(~tokens.present, 0.0).sum(dim=-1)
        summed = value.detach().masked_fill(~tokens.present.unsqueeze(1), 0.0).sum(dim=-1)
        return log_evidence, put_back(summed, column, log_prior.shape[1])
