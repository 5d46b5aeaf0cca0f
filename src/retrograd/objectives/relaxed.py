"""Relaxed selection: the top R of K candidates as weights [R K] through which a gradient reaches the scores.

    hard    slot r holds the candidate with the r-th largest score
    soft    slot r holds Σ_k w_k^r (candidate k), w^r a softmax that hardens to the hard choice as T → 0

Everything runs in log space; the temperature stands inside each softmax. `StochasticTopK` puts the pieces together
for sampled selections, `RelaxedTopK` (`retrograd.objectives.differentiable_knn`) for the one best.

Plötz & Roth 2018, "Neural Nearest Neighbors Networks" (arXiv 1810.12575); Prillo & Eisenschlos 2020, "SoftSort"
(arXiv 2006.16038); Kool et al. 2019, "Stochastic Beams and Where to Find Them" (arXiv 1903.06059), Gumbel top-k.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.objectives.checks import check_choice, check_count, check_log_likelihood
from retrograd.objectives.functional import (
    ABSENT,
    effective_sample_size,
    entropy,
    in_full_precision,
    log1mexp,
    masked_log_softmax,
    masked_logsumexp,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Likelihood, Reads
from retrograd.objectives.scoring import mean_over_queries, mean_where, prior_alone
from retrograd.types import UserError

__all__ = [
    "Operator",
    "StochasticTopK",
    "describe_slots",
    "gumbel",
    "hard_top_k",
    "slot_weights",
    "softsort_rows",
    "straight_through",
    "successive_softmax",
]

Operator = Literal["softsort", "n3", "hard", "hard_n3"]
"""How scores become slots. The hard ones have the gradient of the soft ones, straight through."""

Temperature = float | Float[Tensor, "#B 1"]
"""One for all queries, or one for each."""

HEAVY = -0.5
"""A log-weight above this (a share of 0.61) belongs to the one candidate that may hold nearly all of a slot."""

STEEPEST = 1e12
"""Bound of a derivative: finite in fp32, squared and summed for a norm as well."""

# ---------------------------------------------------------------------------------------------------------------------
# Scores to weights
# ---------------------------------------------------------------------------------------------------------------------


def slot_weights(
    score: Float[Tensor, "B K"], slots: int, temperature: Temperature, operator: Operator
) -> Float[Tensor, "B {slots} K"]:
    """Return the weights of R slots by any of the operators."""
    relax = softsort_rows if operator in ("softsort", "hard") else successive_softmax
    soft = relax(score, slots, temperature)
    return straight_through(hard_top_k(score, slots), soft) if operator.startswith("hard") else soft


def successive_softmax(
    score: Float[Tensor, "B K"], slots: int, temperature: Temperature
) -> Float[Tensor, "B {slots} K"]:
    """Compute N3: a¹ = score; wʳ = softmax(aʳ / T); aʳ⁺¹ = aʳ + log(1 - wʳ). Plötz & Roth 2018, §3.1.

    The logarithm is not rescaled by T: scaled, a candidate that fills a slot would come back as an equal of the next.
    Each row sums to 1, but a candidate may get more than 1 over all rows, and equal scores never separate. Of n
    candidates present the first n rows are filled; later ones are zero, as in `hard_top_k`.

    Where scores lie within T of each other the subtraction overshoots: their order turns round from row to row, and
    derivatives may grow by a factor of the order 1/T with each; they are cut at `STEEPEST` on their way back from row
    to row, before they overflow. Those of `softsort_rows` stay below 1/(2T).
    """
    remaining = in_full_precision(score)
    rows: list[Tensor] = []
    for _ in range(slots):
        log_weight = masked_log_softmax(_near_zero(_divide(remaining, temperature)))
        rows.append(log_weight)
        remaining = remaining + _log_unused(log_weight)
        if remaining.requires_grad:
            remaining.register_hook(_clamp)
    return torch.stack(rows, dim=1).exp().masked_fill(~_fillable(score, slots), 0.0)


def _clamp(gradient: Float[Tensor, "B K"] | None) -> Float[Tensor, "B K"] | None:
    """Clamp the gradient; None, where torch knows that nothing came back, stays None."""
    return None if gradient is None else gradient.clamp(-STEEPEST, STEEPEST)


def _divide(score: Float[Tensor, "B K"], temperature: Temperature) -> Float[Tensor, "B K"]:
    """Return score / T, where absent scores stay absent and give a learned T no gradient (-inf·0 would be NaN)."""
    absent = score == ABSENT
    return (score.masked_fill(absent, 0.0) / temperature).masked_fill(absent, ABSENT)


def _near_zero(logit: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Subtract a constant per row from logits: at T = 0.005 they reach 10^4, where fp32 is too coarse."""
    level = masked_logsumexp(logit.detach()).unsqueeze(-1)
    return logit - level.masked_fill(level == ABSENT, 0.0)


def _log_unused(log_weight: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return log(1 - w) of a row of log-weights, exact and with exact gradients even where w rounds to 1.

    The difference 1 - w is the sum of the other weights. For the one heavy weight that sum is taken in log space, where
    nothing cancels: by `log1mexp` its gradient would be the product of a huge number and a rounding error.
    """
    heavy = log_weight > HEAVY
    light = log_weight.masked_fill(heavy, ABSENT)
    return torch.where(heavy, masked_logsumexp(light).unsqueeze(-1), log1mexp(light))


def softsort_rows(score: Float[Tensor, "B K"], slots: int, temperature: Temperature) -> Float[Tensor, "B {slots} K"]:
    """Compute SoftSort: row r = softmax(-|s_[r] - s| / T), s_[r] the r-th largest score. Prillo & Eisenschlos 2020, eq.
    4.

    Each row sums to 1 and is largest at the r-th largest score, at every temperature. Of n candidates present the first
    n rows are filled; later ones are zero.
    """
    score = in_full_precision(score)
    present = score > ABSENT
    best = score.sort(dim=-1, descending=True, stable=True).values[:, :slots]
    best = torch.nn.functional.pad(best, (0, slots - best.shape[1]), value=ABSENT)
    # Distances are taken between finite stand-ins: |-inf - -inf| has no value and no gradient.
    anchor = best.masked_fill(best == ABSENT, 0.0).unsqueeze(-1)
    distance = (anchor - score.masked_fill(~present, 0.0).unsqueeze(1)).abs()
    usable = present.unsqueeze(1) & _fillable(score, slots)
    scale = temperature.unsqueeze(-1) if isinstance(temperature, Tensor) else temperature
    return masked_log_softmax((-distance / scale).masked_fill(~usable, ABSENT)).exp()


def hard_top_k(score: Float[Tensor, "B K"], slots: int) -> Float[Tensor, "B {slots} K"]:
    """Return one-hot rows: row r marks the r-th largest score, ties by column. Rows beyond the candidates are zero."""
    score = in_full_precision(score.detach())
    order = score.argsort(dim=-1, descending=True, stable=True)[:, :slots]
    marks = (score.gather(1, order) > ABSENT).to(score.dtype)
    empty = score.new_zeros(score.shape[0], slots, score.shape[1])
    return empty.scatter(2, order.unsqueeze(-1), marks.unsqueeze(-1))


def straight_through(hard: Float[Tensor, "*shape"], soft: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``hard`` with the gradient of ``soft``. Bengio, Léonard & Courville 2013 (arXiv 1308.3432)."""
    # In this order soft - soft is exactly 0 and a weight of 0 or 1 stays exactly that: 0 means absence.
    return hard + (soft - soft.detach())


def _fillable(score: Float[Tensor, "B K"], slots: int) -> Bool[Tensor, "B {slots} 1"]:
    """Mark the slots for which there is a candidate."""
    count = (score > ABSENT).sum(dim=-1, keepdim=True)
    return (torch.arange(slots, device=score.device) < count).unsqueeze(-1)


# ---------------------------------------------------------------------------------------------------------------------
# Noise
# ---------------------------------------------------------------------------------------------------------------------


def gumbel(shape: tuple[int, ...], rng: torch.Generator, like: Tensor) -> Float[Tensor, "*shape"]:
    """Draw standard Gumbel noise -log(-log u) in the precision and on the device of ``like``; always finite.

    Drawn in fp64 where ``rng`` lives: one seed means the same noise in every precision and on every device.
    """
    uniform = torch.rand(shape, generator=rng, device=rng.device, dtype=torch.float64)
    tiny = torch.finfo(torch.float64).tiny  # u = 0 comes once in 2^53 numbers, and has no logarithm; u < 1 always
    return -(-uniform.clamp(min=tiny).log()).log().to(like.device, like.dtype)


def _gumbel_where(
    present: Bool[Tensor, "B K"], draws: int, rng: torch.Generator, like: Tensor
) -> Float[Tensor, "{draws} B K"]:
    """Draw noise for the candidates present, 0 elsewhere.

    Numbers are drawn for present candidates alone, row after row, so that neither padding nor the batch changes what
    the others get.
    """
    noise = gumbel((draws * int(present.sum()),), rng, like)
    everywhere = present.unsqueeze(1).expand(-1, draws, -1)
    scattered = torch.zeros(everywhere.shape, dtype=like.dtype, device=like.device).masked_scatter(everywhere, noise)
    return scattered.transpose(0, 1)


# ---------------------------------------------------------------------------------------------------------------------
# Diagnostics
# ---------------------------------------------------------------------------------------------------------------------


@torch.no_grad()
def describe_slots(
    log_prior: Float[Tensor, "B K"], weight: Float[Tensor, "M B R K"], log_likelihood: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, ""]]:
    """Return the diagnostics of `Estimate` for M prompts of R slots a query.

    They are means over filled slots, then prompts, then queries that have a candidate (for
    ``slot_similarity``: two filled slots).
    """
    present = (log_prior > ABSENT).any(dim=-1)
    filled = (weight > 0).any(dim=-1).sum(dim=-1)
    per_query = effective_sample_size(weight).sum(dim=-1) / filled.clamp(min=1)
    mean = mean_over_queries(log_likelihood)
    prompts = mean.new_full((), float(len(weight)))
    diagnostics = {
        "log_marginal": mean,
        "log_likelihood": mean,
        "candidate_mass": mean_where(masked_logsumexp(log_prior).exp(), present),
        "prior_entropy": mean_where(entropy(masked_log_softmax(log_prior)), present),
        "effective_sample_size": mean_where(per_query.mean(dim=0), present),
        "effective_neighbours": mean_where(effective_sample_size(weight.sum(dim=-2)).mean(dim=0), present),
        "generator_forwards": prompts,
        "generator_backwards": prompts,
        "empty_share": 1.0 - present.to(log_prior.dtype).mean(),
    }
    if weight.shape[-2] == 1:
        return diagnostics
    return diagnostics | {"slot_similarity": mean_where(_slot_cosine(weight, filled).mean(dim=0), filled[0] > 1)}


def _slot_cosine(weight: Float[Tensor, "M B R K"], filled: Int[Tensor, "M B"]) -> Float[Tensor, "M B"]:
    """Return the mean cosine over all pairs of n filled slots, (‖Σ u‖² - n) / (n (n - 1)) for their unit rows u."""
    length = weight.norm(dim=-1, keepdim=True)
    together = (weight / length.masked_fill(length == 0, 1.0)).sum(dim=-2).square().sum(dim=-1)
    return (together - filled) / (filled * (filled - 1)).clamp(min=1)


# ---------------------------------------------------------------------------------------------------------------------
# The objective
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class StochasticTopK:
    """Stochastic RAG: sample R passages without replacement, read them together, differentiate through a relaxation.

    **Equation.** -1/M Σ_m log p(y|x, z_1 … z_R), (z_1 … z_R) the R = ``slots`` candidates with the largest
    log p(z|x) + ``noise``·g, best first, g standard Gumbel noise, anew in each of the M = ``draws``. With ``noise`` = 1
    they are a sample without replacement in the order of its draws (Plackett-Luce); with 0 simply the R best. The
    likelihood is that of soft slots (`Likelihood.at_mixture`) with straight-through weights hard + soft - sg[soft]:
    hard are one-hot rows, soft the ``relaxation`` of the same perturbed scores at ``temperature``.

    **Paper.** Zamani & Bendersky 2024, "Stochastic RAG" (arXiv 2405.02816). The law of the top R: Kool et al. 2019
    (arXiv 1903.06059). ``"successive_softmax"``: Plötz & Roth 2018 (arXiv 1810.12575), for sampled sets Xie & Ermon
    2019 (arXiv 1901.10517). ``"softsort"``: Prillo & Eisenschlos 2020 (arXiv 2006.16038).

    **Bias.** The value, and the generator's gradient, are unbiased for J = E[log p(y|x, z_1 … z_R)] under Plackett-Luce
    over the candidates (``noise`` = 1), a lower bound on the log of the mean likelihood. The prior's gradient is that
    of the soft rows at the hard point. Where log p is linear in the weights its mean is the gradient of the same J with
    the mean soft rows in place of the probabilities; a lower ``temperature`` removes that at the price of variance.
    What log p curves between a soft and a hard slot is not removed by anything. Only the prior renormalised over the
    candidates matters: the mass outside them gets no gradient.

    **Gradient.** Prior logits get the relaxation's, through the soft rows alone: from chosen candidates, and from the
    others as far as `at_mixture` knows what a little of them would change. The generator gets ∇ log p of the one prompt
    with the chosen passages. There is no posterior.

    **Cost.** Generator forwards with gradient: ``draws``, each with R passages in its prompt; none without gradient.

    **Padding.** An absent candidate (``-inf``) gets no noise, is never chosen and has weight 0 and gradient 0. With
    fewer candidates than slots the last slots are empty; a query without any is answered from the prompt without
    passages.

    Example::

        print(rg.StochasticTopK().trains_retriever)
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = False
    reads = Reads.SLOTS
    selection = None
    leaves_one_out = False
    mixes_tokens = False

    slots: int = 2
    temperature: float = 1.0
    noise: float = 1.0
    relaxation: Literal["successive_softmax", "softsort"] = "successive_softmax"
    draws: int = 1

    def __post_init__(self) -> None:
        check_count(self, "slots", self.slots)
        check_count(self, "draws", self.draws)
        check_choice(self, "relaxation", self.relaxation, ("successive_softmax", "softsort"))
        if not 0.0 < self.temperature < math.inf:
            raise UserError(f"StochasticTopK: temperature is {self.temperature!r}; it must be above 0 and finite")
        if not 0.0 <= self.noise < math.inf:
            raise UserError(f"StochasticTopK: noise is {self.noise!r}; it must be at least 0 and finite")
        if self.noise == 0 and self.draws > 1:
            raise UserError(f"StochasticTopK: without noise all {self.draws} draws are the same; set draws = 1")

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries and draws of the negative log-likelihood in nats. ``rng`` draws any noise."""
        log_prior = prior_alone(self, scores)
        softs, values = [], []
        for noise in self._noise(log_prior, rng):
            perturbed = log_prior + noise
            soft = slot_weights(perturbed, self.slots, self.temperature, self._operator)
            value = in_full_precision(likelihood.at_mixture(straight_through(hard_top_k(perturbed, self.slots), soft)))
            check_log_likelihood(value)
            softs.append(soft.detach())
            values.append(value)
        log_likelihood = torch.stack(values).mean(dim=0)
        diagnostics = describe_slots(log_prior.detach(), torch.stack(softs), log_likelihood.detach())
        return Estimate(-mean_over_queries(log_likelihood), diagnostics)

    def _noise(self, log_prior: Float[Tensor, "B K"], rng: torch.Generator) -> Float[Tensor, "M B K"]:
        if self.noise == 0:
            return torch.zeros_like(log_prior).unsqueeze(0)
        return self.noise * _gumbel_where(log_prior > ABSENT, self.draws, rng, log_prior)

    @property
    def _operator(self) -> Operator:
        return "softsort" if self.relaxation == "softsort" else "n3"
