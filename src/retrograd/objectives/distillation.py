"""Distillation: the generator's scores of the candidates become a target that the retriever imitates.

    minimise  KL( target(z|x,y) ‖ p(z|x) )  or its reverse,  plus what the generator itself learns from (the reader)

Nothing flows through the target, so scoring the candidates costs forwards only. Sachan et al. 2021 (arXiv 2106.05346),
EMDR²; Izacard et al. 2022 (arXiv 2208.03299), Atlas; Shi et al. 2023 (arXiv 2301.12652), REPLUG.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.deferred import Bool, Float, Tensor, torch
from retrograd.objectives.checks import check_choice, check_log_likelihood, check_positive, check_share
from retrograd.objectives.frozen import FrozenRetriever
from retrograd.objectives.functional import (
    ABSENT,
    columns_where,
    in_full_precision,
    kl_p_q,
    log_marginal,
    masked_log_softmax,
    masked_logsumexp,
    put_back,
    responsibilities,
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
    pruned_sum,
)
from retrograd.types import UserError

__all__ = ["Distillation"]


@dataclass(frozen=True)
class _Targets:
    """Scores of the pass without gradient.

    ``log_likelihood`` is log p(y|x,z) in nats of each candidate ``is_scored`` alone, ``-inf`` for the others;
    ``log_evidence`` is log p(y|x) as far as the pass can tell; ``prompts`` is how many prompts of several passages a
    query took.
    """

    log_target: Float[Tensor, "B K"]
    log_likelihood: Float[Tensor, "B K"]
    is_scored: Bool[Tensor, "B K"]
    log_evidence: Float[Tensor, " B"]
    prompts: int = 0


@dataclass(frozen=True)
class _ReaderTerm:
    """Term of the reader, its log p(y|x), and the candidates that it read one by one (None: not one by one)."""

    loss: Float[Tensor, ""]
    log_marginal: Float[Tensor, ""] | None = None
    heaviest: Bool[Tensor, "B K"] | None = None


@dataclass(frozen=True)
class Distillation:
    """The retriever imitates what the generator's scores say of the candidates; the generator learns beside it.

    **Equation.** Retriever term + reader term. ℓ_k = log p(y|x,z_k), or with ``length_normalised`` its mean per target
    token (that of a whole prompt likewise), τ = ``temperature``, and p is the prior, renormalised over the candidates
    (p̃; ``normaliser="candidates"``) or as given ("full"). A KL is summed over candidates and averaged over queries.

    * ``target="emdr2"``: -log Σ_k p(z_k|x) p(y|x,z_k), the likelihood held constant.
    * ``target="pdist_kl_target_prior"``: KL(T ‖ p), T ∝ exp(ℓ_k/τ). Perplexity distillation.
    * ``target="loop_kl_target_prior"``: KL(T ‖ p), T ∝ exp(-log p(y|x, all candidates but k)/τ): a passage counts for
      what is lost without it. The others stand in one prompt, best prior first.
    * ``target="replug_kl_prior_target"``: KL(p̃ ‖ T), T ∝ exp(ℓ_k/τ).

    ``reader="together"``: -log p(y|x, z_1 … z_K), one prompt, best prior first. ``"marginal"``: -log Σ_k p̃ p(y|x,z_k),
    p̃ held constant. Both are `FrozenRetriever`'s. ``"none"``: nothing, the generator is frozen.

    **Paper.** "emdr2": Sachan et al. 2021 (arXiv 2106.05346), with reader "together". "pdist", "loop": Izacard et al.
    2022, Atlas (arXiv 2208.03299), with reader "together". "replug": Shi et al. 2023 (arXiv 2301.12652), the supervised
    retriever (LSR), with reader "none". ``length_normalised="as_published"``: the mean for "pdist" and "loop", as in
    Atlas's released code, the sum for "emdr2" and "replug". Two departures. Atlas's released loss is the KL divided by
    K, which padding would change; here it is summed. REPLUG's T is ∝ exp(probability/τ): probabilities of long targets
    are all nearly 0, so it goes uniform however the passages differ; log-likelihoods do not.

    **Bias.** Only "emdr2" estimates the gradient of log p(y|x), as `TopKMarginal` does and with its bias, and mixes
    it with a reader that is another model. In "pdist" and "replug" T leaves the prior out: at τ = 1, without length
    normalisation, it is the posterior of a retriever that knows nothing. Length normalisation flattens T as if all
    targets had one token. "loop" is a heuristic: of two passages that say the same, neither is missed. No setting
    removes any of this. ``kept_mass`` < 1: as in `JointStochasticApproximation`, of reader "marginal" only.

    **Gradient.** Prior logits (ascent): T - p for "pdist" and "loop"; π - p for "emdr2", π ∝ p(z_k|x) p(y|x,z_k);
    p̃_k (KL - log p̃_k/T_k) for "replug". They get nothing from the reader, the generator nothing from the retriever
    term: only ∇ log p(y|x, z_1 … z_K) or Σ_k π_k ∇ log p(y|x,z_k), or nothing. There is no posterior retriever.

    **Cost.** Generator forwards without gradient: K; for "loop" K prompts of K - 1 passages instead (as many for each
    query as the fullest one of the batch needs), and K more with reader "marginal". A mean per token asks for tokens,
    for which a likelihood may read one prompt without passages, not counted. With gradient: one prompt of K
    passages ("together"); the heaviest passages that hold ``kept_mass`` of π ("marginal"); none ("none").

    **Padding.** A candidate with ``log_prior`` -inf is absent: not scored, not in a prompt, no gradient. The value does
    not change with K. A query without candidates adds 0, but for the reader "together", which learns its target from
    the prompt without passages. Where a passage makes the target impossible, "replug", infinite there, leaves it out.

    Example::

        print(rg.Distillation().trains_retriever)
    """

    trains_retriever = True
    needs_posterior = False
    mixes_tokens = False
    goal = Goal.OTHER
    selection = None

    target: Literal["emdr2", "pdist_kl_target_prior", "loop_kl_target_prior", "replug_kl_prior_target"] = (
        "pdist_kl_target_prior"
    )
    reader: Literal["together", "marginal", "none"] = "together"
    temperature: float = 1.0
    length_normalised: Literal["as_published", "yes", "no"] = "as_published"
    normaliser: Literal["full", "candidates"] = "candidates"
    kept_mass: float = 0.99

    def __post_init__(self) -> None:
        targets = ("emdr2", "pdist_kl_target_prior", "loop_kl_target_prior", "replug_kl_prior_target")
        check_choice(self, "target", self.target, targets)
        check_choice(self, "reader", self.reader, ("together", "marginal", "none"))
        check_choice(self, "length_normalised", self.length_normalised, ("as_published", "yes", "no"))
        check_choice(self, "normaliser", self.normaliser, ("full", "candidates"))
        check_share(self, "kept_mass", self.kept_mass)
        check_positive(self, "temperature", self.temperature)
        self._check_target()

    def _check_target(self) -> None:
        """Raise `UserError` where another setting means nothing to the target that is set."""
        if self.target == "replug_kl_prior_target" and self.normaliser == "full":
            raise UserError(
                "Distillation: normaliser is 'full', but target 'replug_kl_prior_target' averages over the prior, "
                "which must then be a distribution over the candidates; set normaliser = 'candidates'"
            )
        if self.target == "emdr2" and (self.temperature != 1.0 or self.length_normalised == "yes"):
            raise UserError(
                "Distillation: target 'emdr2' is the marginal likelihood of the target text, which has neither a "
                "temperature nor a mean per token; leave temperature = 1.0 and length_normalised = 'no', or set "
                "target = 'pdist_kl_target_prior'"
            )

    @property
    def trains_generator(self) -> bool:
        """The generator learns unless ``reader`` is "none"."""
        return self.reader != "none"

    @property
    def reads(self) -> Reads:
        """Passages are read as the reader reads them; without a reader, the model answers from each separately."""
        return Reads.TOGETHER if self.reader == "together" else Reads.SEPARATELY

    @property
    def leaves_one_out(self) -> bool:
        """The target "loop_kl_target_prior" takes a prompt of all the others for each candidate."""
        return self.target == "loop_kl_target_prior"

    @property
    def needs_log_normaliser(self) -> bool:
        """Return whether the prior's mass outside the candidates counts."""
        return self.normaliser == "full"

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries of the retriever's and the reader's term, in nats. ``rng`` is not used."""
        log_prior = prior_alone(self, scores)
        with torch.no_grad():
            targets = self._score_candidates(log_prior, likelihood)
        reader_term = self._reader_term(scores, targets, likelihood)
        loss = reader_term.loss - mean_over_queries(self._agreement(log_prior, targets))
        return Estimate(loss, self._diagnostics(log_prior, targets, reader_term))

    # ---- the retriever's term -----------------------------------------------------------------------------------

    def _score_candidates(self, log_prior: Float[Tensor, "B K"], likelihood: Likelihood) -> _Targets:
        """Score without gradient: every candidate alone, or all prompts that leave one out."""
        if self.target == "loop_kl_target_prior":
            return self._score_left_out(log_prior, likelihood)
        present = log_prior > ABSENT
        if self._length_normalised:
            log_likelihood, evidence = _sum_and_mean_per_token(likelihood, present)
        else:
            log_likelihood = evidence = log_likelihood_where(likelihood, present)
        if self.target == "emdr2":
            evidence = log_prior + log_likelihood
        log_target = masked_log_softmax(evidence / self.temperature)
        return _Targets(
            log_target, log_likelihood, present, log_marginal(normalise(log_prior, self.normaliser), log_likelihood)
        )

    def _score_left_out(self, log_prior: Float[Tensor, "B K"], likelihood: Likelihood) -> _Targets:
        present = log_prior > ABSENT
        left_out, prompts = _without_each(log_prior, likelihood)
        evidence = left_out
        if self._length_normalised:
            # No column is asked for: what is wanted is which tokens a target has.
            nothing = torch.empty((len(log_prior), 0), dtype=torch.long, device=log_prior.device)
            evidence = left_out / likelihood.tokens_at(nothing).present.sum(dim=-1, keepdim=True).clamp(min=1)
        missed = torch.where(present, -evidence / self.temperature, ABSENT)
        # A passage without which the target is impossible scores +inf, and inf - inf is NaN.
        log_target = masked_log_softmax(missed.clamp(max=torch.finfo(missed.dtype).max))
        alone, is_scored = torch.full_like(log_prior, ABSENT), torch.zeros_like(present)
        if self.reader == "marginal":
            alone, is_scored = log_likelihood_where(likelihood, present), present
        log_mean = masked_logsumexp(left_out) - present.sum(dim=-1).clamp(min=1).log()
        return _Targets(log_target, alone, is_scored, log_mean, prompts)

    def _agreement(self, log_prior: Float[Tensor, "B K"], targets: _Targets) -> Float[Tensor, " B"]:
        """Return what the retriever maximises: a log marginal, or minus a KL."""
        if self.target == "emdr2":
            return log_marginal(normalise(log_prior, self.normaliser), targets.log_likelihood)
        if self.target == "replug_kl_prior_target":
            possible = masked_log_softmax(log_prior.masked_fill(targets.log_target == ABSENT, ABSENT))
            return -kl_p_q(possible, targets.log_target)
        return -kl_p_q(targets.log_target, normalise(log_prior, self.normaliser))

    @property
    def _length_normalised(self) -> bool:
        if self.length_normalised == "as_published":
            return self.target in ("pdist_kl_target_prior", "loop_kl_target_prior")
        return self.length_normalised == "yes"

    # ---- the generator's term -----------------------------------------------------------------------------------

    def _reader_term(self, scores: CandidateScores, targets: _Targets, likelihood: Likelihood) -> _ReaderTerm:
        """Return the reader's term, the only one that sends the generator a gradient."""
        if self.reader == "together":
            estimate = FrozenRetriever(form="together")(scores, likelihood, torch.Generator())
            return _ReaderTerm(estimate.loss, estimate.diagnostics["log_marginal"])
        if self.reader == "none":
            return _ReaderTerm(targets.log_evidence.new_zeros(()))
        log_prior = masked_log_softmax(in_full_precision(scores.log_prior.detach()))
        weight = responsibilities(log_prior, targets.log_likelihood)
        learned, heaviest = pruned_sum(likelihood, weight, targets.log_likelihood, self.kept_mass)
        # Σ π ∇ log p(y|x,z) is the gradient of the log marginal, whose value is had already.
        log_evidence = log_marginal(log_prior, targets.log_likelihood) + learned - learned.detach()
        return _ReaderTerm(
            -mean_over_queries(log_evidence), mean_where(log_evidence, targets.is_scored.any(dim=-1)), heaviest
        )

    # ---- to be read ---------------------------------------------------------------------------------------------

    def _diagnostics(
        self, log_prior: Float[Tensor, "B K"], targets: _Targets, reader_term: _ReaderTerm
    ) -> dict[str, Float[Tensor, ""]]:
        """Return `describe` with the target as the weights, and the costs of both terms.

        The log marginal is the reader's, if there is one. Where no candidate was scored alone it stands for
        ``log_likelihood`` too.
        """
        diagnostics = dict(describe(targets.log_target.exp(), log_prior, targets.log_likelihood, targets.log_evidence))
        if reader_term.log_marginal is not None:
            diagnostics["log_marginal"] = reader_term.log_marginal
        if self.target == "loop_kl_target_prior" and self.reader != "marginal":
            diagnostics["log_likelihood"] = diagnostics["log_marginal"]
        if reader_term.heaviest is not None:
            costs = cost(targets.is_scored, reader_term.heaviest)
        else:
            is_scored = targets.is_scored.sum(dim=-1).float().mean()
            backwards = is_scored.new_full((), 1.0 if self.reader == "together" else 0.0)
            costs = {"generator_forwards": is_scored + backwards, "generator_backwards": backwards}
        return {**diagnostics, **costs, "generator_forwards": costs["generator_forwards"] + targets.prompts}


def _sum_and_mean_per_token(
    likelihood: Likelihood, mask: Bool[Tensor, "B K"]
) -> tuple[Float[Tensor, "B K"], Float[Tensor, "B K"]]:
    """Return log p(y|x,z) of the wanted candidates in nats, and per target token; ``-inf`` for all others."""
    column = columns_where(mask)
    tokens = likelihood.tokens_at(column)
    value = in_full_precision(tokens.value)
    check_log_likelihood(value)
    summed = value.masked_fill(~tokens.present.unsqueeze(1), 0.0).sum(dim=-1)
    total = put_back(summed, column, mask.shape[1])
    return total, total / tokens.present.sum(dim=-1, keepdim=True).clamp(min=1)


def _without_each(log_prior: Float[Tensor, "B K"], likelihood: Likelihood) -> tuple[Float[Tensor, "B K"], int]:
    """Return log p(y|x, all candidates but k, best prior first) in nats, for each k, and the prompts per query.

    Each prompt is asked for all queries at once, so a query with few candidates waits for the one with most; meanwhile
    it is asked without passages, which is the cheapest prompt there is.
    """
    best_first, order = log_prior.sort(dim=-1, descending=True, stable=True)
    order = order.masked_fill(best_first == ABSENT, -1)
    count = (order >= 0).sum(dim=-1, keepdim=True)
    prompts = int(count.max()) if count.numel() else 0
    values = []
    for left_out in range(prompts):
        rest = torch.cat([order[:, :left_out], order[:, left_out + 1 :]], dim=-1)
        values.append(in_full_precision(likelihood.together(rest.masked_fill(left_out >= count, -1))))
    if not values:
        return torch.full_like(log_prior, ABSENT), 0
    value = torch.stack(values, dim=-1)
    check_log_likelihood(value)
    return put_back(value, order[:, :prompts], log_prior.shape[1]), prompts
