"""Relaxed selection: the top R of K candidates as weights [R K] through which a gradient reaches the scores.

    hard    slot r holds the candidate with the r-th largest score
    soft    slot r holds Σ_k w_k^r (candidate k), w^r a softmax that hardens to the hard choice as T → 0

Everything runs in log space; the temperature stands inside each softmax. `StochasticTopK`
(`retrograd.objectives.stochastic_top_k`) puts the pieces together for sampled selections, `RelaxedTopK`
(`retrograd.objectives.differentiable_knn`) for the one best.

Plötz & Roth 2018, "Neural Nearest Neighbors Networks" (arXiv 1810.12575); Prillo & Eisenschlos 2020, "SoftSort"
(arXiv 2006.16038); Kool et al. 2019, "Stochastic Beams and Where to Find Them" (arXiv 1903.06059), Gumbel top-k.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from retrograd.deferred import Bool, Float, Int, Tensor, torch
from retrograd.objectives.functional import (
    ABSENT,
    effective_sample_size,
    entropy,
    in_full_precision,
    log1mexp,
    masked_log_softmax,
    masked_logsumexp,
)
from retrograd.objectives.scoring import mean_over_queries, mean_where

__all__ = [
    "Operator",
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

Temperature: TypeAlias = 'float | Float[Tensor, "#B 1"]'
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
    scale = temperature.unsqueeze(-1) if isinstance(temperature, torch.Tensor) else temperature
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


# ---------------------------------------------------------------------------------------------------------------------
# Diagnostics
# ---------------------------------------------------------------------------------------------------------------------


def describe_slots(
    log_prior: Float[Tensor, "B K"], weight: Float[Tensor, "M B R K"], log_likelihood: Float[Tensor, " B"]
) -> dict[str, Float[Tensor, ""]]:
    """Return the diagnostics of `Estimate` for M prompts of R slots a query.

    They are means over filled slots, then prompts, then queries that have a candidate (for
    ``slot_similarity``: two filled slots).
    """
    with torch.no_grad():
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
