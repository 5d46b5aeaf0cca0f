"""Pure functions of tensors: log-space algebra where ``-inf`` means absence, and the Metropolis independence sampler.

Everything here runs along the last axis, the candidates, and keeps one promise: an entry that is ``-inf`` behaves as
if it were not there, in value and in gradient, and a row of nothing but ``-inf`` yields ``-inf`` (or weights of zero)
with gradients of zero, never NaN. No epsilon stands inside a logarithm. Logarithms are natural: units are nats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from retrograd.deferred import Bool, Float, Int, Tensor, torch

__all__ = [
    "ChainDraws",
    "MetropolisChain",
    "columns_where",
    "counts",
    "cover",
    "defensive",
    "draw_chain",
    "effective_sample_size",
    "entropy",
    "importance_efficiency",
    "in_full_precision",
    "kl_p_q",
    "log1mexp",
    "log_marginal",
    "log_multiplicity",
    "masked_log_softmax",
    "masked_logsumexp",
    "metropolis_independence",
    "propose",
    "put_back",
    "responsibilities",
    "take",
    "weighted_sum",
]

ABSENT = -math.inf


# ---------------------------------------------------------------------------------------------------------------------
# Log-space algebra
# ---------------------------------------------------------------------------------------------------------------------


def in_full_precision(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the value in fp32, or in fp64 if it is fp64: log-sums and acceptances are never in half precision."""
    return value.float() if value.dtype in (torch.bfloat16, torch.float16) else value


def masked_logsumexp(value: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return log Σ_k exp(v_k), and ``-inf`` with gradient zero for an empty row.

    The gradient is softmax(v). Plain ``logsumexp`` divides 0 by 0 in the gradient of an empty row.
    """
    empty = (value == ABSENT).all(dim=-1)
    total = value.masked_fill(empty.unsqueeze(-1), 0.0).logsumexp(dim=-1)
    return total.masked_fill(empty, ABSENT)


def masked_log_softmax(value: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch K"]:
    """Return v_k - log Σ_j exp(v_j), over the entries present. Absent entries, and empty rows, stay ``-inf``.

    The largest entry is taken away first: a log-sum in the thousands is rounded to 1e-4, by which a row would miss 1.
    """
    if value.shape[-1] == 0:
        return value
    largest = value.detach().amax(dim=-1, keepdim=True)
    below = value - largest.masked_fill(largest == ABSENT, 0.0)
    total = masked_logsumexp(below).unsqueeze(-1)
    return below - total.masked_fill(total == ABSENT, 0.0)


def weighted_sum(weight: Float[Tensor, "*batch K"], value: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return Σ_k w_k v_k where 0·(-inf) = 0: an entry of weight zero adds nothing and receives no gradient."""
    return (weight * value.masked_fill(weight == 0, 0.0)).sum(dim=-1)


def log1mexp(value: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(1 - exp(v)) for v ≤ 0, exact at both ends; the gradient is -exp(v) / (1 - exp(v)).

    Takes log(-expm1(v)) for v > -log 2 and log1p(-exp(v)) below (Mächler 2012, "Accurately computing
    log(1 - exp(-|a|))"). At v = 0, where a weight has rounded to 1, nothing is left: the result is ``-inf`` and the
    gradient zero instead of infinite. Values above 0 by rounding count as 0.
    """
    spent = value >= 0
    near = value > -math.log(2.0)
    # Each branch sees a harmless constant wherever the other one is taken, or its infinite gradient would leak as NaN.
    close = torch.log(-torch.expm1(torch.where(near & ~spent, value, -0.5)))
    far = torch.log1p(-torch.exp(torch.where(near, -1.0, value)))
    return torch.where(near, close, far).masked_fill(spent, ABSENT)


def log_marginal(log_prior: Float[Tensor, "B K"], log_likelihood: Float[Tensor, "B K"]) -> Float[Tensor, " B"]:
    """Return log Σ_k p(z_k|x) p(y|x,z_k): log p(y|x) over the candidates. Lewis et al. 2020, RAG-sequence, §2.1.

    Its gradient is `responsibilities`, both in log p(z|x) and in log p(y|x,z). It is a lower bound on log p(y|x) when
    the prior is normalised over the whole knowledge base, and not a bound at all when it was renormalised.
    """
    return masked_logsumexp(log_prior + log_likelihood)


def responsibilities(log_prior: Float[Tensor, "B K"], log_likelihood: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return π_k ∝ p(z_k|x) p(y|x,z_k), Bayes' rule over the candidates; rows sum to 1, an empty row to 0."""
    return masked_log_softmax(log_prior + log_likelihood).exp()


def log_multiplicity(log_proposal: Float[Tensor, "B K"], times: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Return log of how many passages of the base each candidate represents when the tail was sampled.

    Candidates with ``times`` = 0 were retrieved: they stand for themselves (0). The others were drawn ``times`` times
    from a proposal r over the base, restricted to all other passages: with m = Σ times draws and r(C) the proposal's
    mass on the retrieved,

        log( times · (1 - r(C)) / (m · r(z)) ).

    Stratified sampling with one certain stratum (Cochran 1977, §5; with any proposal, Liu et al. 2019, arXiv
    1810.04777): Σ_k p_k · multiplicity_k · f(z_k) is unbiased for the expectation of f under the prior over the whole
    base. With the prior itself as proposal Σ_k p_k · multiplicity_k is 1, with another it is so on average.
    """
    with torch.no_grad():
        is_drawn = times > 0
        log_tail = log1mexp(masked_logsumexp(log_proposal.masked_fill(is_drawn, ABSENT))).unsqueeze(-1)
        share = times / times.sum(dim=-1, keepdim=True).clamp(min=1.0)
        stands_for = torch.where(is_drawn, share, 1.0).log() + log_tail - torch.where(is_drawn, log_proposal, 0.0)
        return torch.where(is_drawn, stands_for, 0.0)


def entropy(log_probability: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return -Σ_k p_k log p_k in nats; between 0 and log K for a distribution."""
    return -weighted_sum(log_probability.exp(), log_probability)


def kl_p_q(log_p: Float[Tensor, "*batch K"], log_q: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return KL(p ‖ q) = Σ_k p_k (log p_k - log q_k) in nats, the expectation under the *first* argument.

    Infinite where q misses something p has. Both should be normalised over the same candidates.
    """
    return weighted_sum(log_p.exp(), log_p) - weighted_sum(log_p.exp(), log_q)


def effective_sample_size(weight: Float[Tensor, "*batch K"]) -> Float[Tensor, "*batch"]:
    """Return (Σ w)² / Σ w²: how many equally weighted passages are as concentrated (Kong 1992); 0 for an empty row."""
    squares = weight.square().sum(dim=-1)
    return weight.sum(dim=-1).square() / squares.masked_fill(squares == 0, 1.0)


def importance_efficiency(log_weight: Float[Tensor, "B M"], count: Float[Tensor, "B M"]) -> Float[Tensor, " B"]:
    """Return (Σ ω)² / (n Σ ω²) over n draws, of which ``count`` have each log ω.

    It is the share of the draws that equally weighted ones would need for the same variance (Kong 1992): 1 where the
    proposal is the posterior, 1/n where one draw holds all; 0 without draws, and where no ω is more than 0.
    """
    log_count = count.log()
    log_total = masked_logsumexp(log_weight + log_count)
    log_squares = masked_logsumexp(2 * log_weight + log_count)
    usable = log_total > ABSENT
    ratio = 2 * log_total.masked_fill(~usable, 0.0) - log_squares.masked_fill(~usable, 0.0)
    return (ratio.exp() / count.sum(dim=-1).clamp(min=1.0)).masked_fill(~usable, 0.0)


# ---------------------------------------------------------------------------------------------------------------------
# Columns: which candidates are looked at
# ---------------------------------------------------------------------------------------------------------------------


def columns_where(mask: Bool[Tensor, "B K"]) -> Int[Tensor, "B M"]:
    """Return the wanted columns of each row in ascending order, as wide as the fullest row, padded with -1."""
    width = int(mask.sum(dim=-1).max()) if mask.numel() else 0
    order = mask.to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :width]
    return order.masked_fill(~mask.gather(1, order), -1)


def take(value: Float[Tensor, "B K"], column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Return ``value`` at the columns; ``-inf`` without gradient at column -1. The inverse of `put_back`."""
    return value.gather(1, column.clamp(min=0)).masked_fill(column < 0, ABSENT)


def put_back(value: Float[Tensor, "B M"], column: Int[Tensor, "B M"], width: int) -> Float[Tensor, "B width"]:
    """Put values back at their columns among ``width`` candidates; ``-inf`` at all other columns."""
    # Padding lands in one spare column that is cut off again, so it can overwrite nothing and returns no gradient.
    spare = column.masked_fill(column < 0, width)
    return value.new_full((value.shape[0], width + 1), ABSENT).scatter(1, spare, value)[:, :width]


def counts(column: Int[Tensor, "B M"], like: Float[Tensor, "B K"]) -> Float[Tensor, "B K"]:
    """Count how often each of the K candidates is among the columns, in ``like``'s dtype; -1 counts for nothing."""
    spare = like.new_zeros((like.shape[0], like.shape[1] + 1))
    ones = torch.ones_like(column, dtype=like.dtype)
    return spare.scatter_add(1, column.masked_fill(column < 0, like.shape[1]), ones)[:, :-1]


def cover(weight: Float[Tensor, "B K"], mass: float) -> Bool[Tensor, "B K"]:
    """Mark the fewest columns, heaviest first, that hold at least the share ``mass`` of each row's weight.

    Columns of weight zero are never kept; ``mass`` = 1 keeps all others, however light.
    """
    sorted_weight, order = weight.sort(dim=-1, descending=True, stable=True)
    before = sorted_weight.cumsum(dim=-1) - sorted_weight
    needed = before < mass * sorted_weight.sum(dim=-1, keepdim=True)
    mask = torch.zeros_like(needed).scatter(1, order, needed if mass < 1.0 else torch.ones_like(needed))
    return mask & (weight > 0)


# ---------------------------------------------------------------------------------------------------------------------
# Sampling
# ---------------------------------------------------------------------------------------------------------------------


def defensive(
    log_posterior: Float[Tensor, "B K"], log_prior: Float[Tensor, "B K"], share: float
) -> Float[Tensor, "B K"]:
    """Return log(share · q + (1 - share) · p), both renormalised over the candidates: positive wherever p is.

    Hesterberg 1995, "Weighted average importance sampling and defensive mixture distributions": an importance weight
    p·L/proposal is then at most L / (1 - share), wherever q has no mass. ``share`` = 1 is q alone, 0 is p alone.
    """
    q, p = masked_log_softmax(log_posterior), masked_log_softmax(log_prior)
    if share in (0.0, 1.0):
        return q if share == 1.0 else p
    return masked_logsumexp(torch.stack([q + math.log(share), p + math.log1p(-share)], dim=-1))


def _uniform(shape: tuple[int, int], like: Float[Tensor, "B K"], rng: torch.Generator) -> Float[Tensor, "B M"]:
    """Draw uniform numbers in [0, 1) on the device of ``rng``, so that a CPU seed means the same everywhere."""
    return torch.rand(shape, generator=rng, device=rng.device, dtype=like.dtype).to(like.device)


def propose(log_proposal: Float[Tensor, "B K"], draws: int, rng: torch.Generator) -> Int[Tensor, "B M"]:
    """Draw ``draws`` independent columns per row from the categorical ∝ exp(log_proposal); -1 from an empty row.

    By inversion of the cumulated probabilities, so that an absent column is never drawn and an empty row is no error.
    """
    return _column_at(log_proposal, _uniform((len(log_proposal), draws), log_proposal, rng))


def _column_at(log_proposal: Float[Tensor, "B K"], uniform: Float[Tensor, "B M"]) -> Int[Tensor, "B M"]:
    if log_proposal.shape[1] == 0:
        return torch.full(uniform.shape, -1, device=log_proposal.device)
    cumulated = masked_log_softmax(log_proposal).exp().cumsum(dim=-1)
    total = cumulated[:, -1:].contiguous()
    column = torch.searchsorted(cumulated, uniform * total, right=True)
    last_present = torch.searchsorted(cumulated, total)  # u·total may round up to total, which lies in no interval
    return torch.minimum(column, last_present).masked_fill(total == 0, -1)


@dataclass(frozen=True)
class ChainDraws:
    """Random numbers of chains of M steps: starts, proposals, and one uniform number in [0, 1) per acceptance."""

    start: Int[Tensor, " B"]
    proposals: Int[Tensor, "B M"]
    uniform: Float[Tensor, "B M"]


def draw_chain(
    log_proposal: Float[Tensor, "B K"], draws: int, previous: Int[Tensor, " B"] | None, rng: torch.Generator
) -> ChainDraws:
    """Draw the random numbers of chains, query after query: a batch of two draws what two batches of one draw.

    A chain starts where it stopped (``previous``). It is cold, and starts at a draw of its own, when ``previous`` is
    None or -1 or is a column that is absent today. -1 stands throughout an empty row.
    """
    uniform = _uniform((len(log_proposal), 2 * draws + 1), log_proposal, rng)
    columns = _column_at(log_proposal, uniform[:, : draws + 1].contiguous())
    start = columns[:, 0]
    if previous is not None:
        is_present = take(log_proposal, previous.unsqueeze(-1)).squeeze(-1) > ABSENT
        start = torch.where(is_present, previous, start)
    return ChainDraws(start, columns[:, 1:], uniform[:, draws + 1 :])


@dataclass(frozen=True)
class MetropolisChain:
    """Result of M steps of a chain: ``last`` is its state, the rest is for reports.

    ``share`` is the part of the M visits that each column got (staying counts again); ``acceptance`` the part of the
    proposals that were accepted, a proposal of the present column included.
    """

    share: Float[Tensor, "B K"]
    last: Int[Tensor, " B"]
    acceptance: Float[Tensor, " B"]


def metropolis_independence(
    log_target: Float[Tensor, "B K"],
    log_proposal: Float[Tensor, "B K"],
    draws: ChainDraws,
) -> MetropolisChain:
    """Run M steps of the Metropolis independence sampler on all rows; the chain leaves π ∝ exp(log_target) unchanged.

    Step: h' comes from q = exp(log_proposal) and is accepted with probability min(1, ω(h')/ω(h)), ω = target / q, the
    state's ω being that of the state as it *now* is. Hastings 1970; its use for latent variables: Ou & Song 2020
    (arXiv 2005.14001), the JSA algorithm. A step shrinks the distance to π at least by the factor 1 - 1/M, M = max π/q,
    which is the second eigenvalue of the kernel (Liu 1996).

    The start is not counted as a visit. Neither normaliser matters. ``log_target`` is needed at the start and at the
    proposals that were drawn (`draw_chain`) only, and may be ``-inf`` elsewhere. A state of probability zero is left at
    the first proposal that has some, and its visits do not count; an empty row has shares of zero and ``last`` -1.
    """
    log_weight = torch.where(log_target > ABSENT, log_target - log_proposal, ABSENT)
    proposals, log_uniform = draws.proposals, draws.uniform.log()
    proposal_weight = take(log_weight, proposals)
    state, state_weight = draws.start, take(log_weight, draws.start.unsqueeze(-1)).squeeze(-1)
    states, accepted = [], []
    for m in range(proposals.shape[1]):
        moves = log_uniform[:, m] < proposal_weight[:, m] - state_weight  # -inf - -inf is NaN, and NaN never moves
        state = torch.where(moves, proposals[:, m], state)
        state_weight = torch.where(moves, proposal_weight[:, m], state_weight)
        states.append(torch.where(state_weight > ABSENT, state, -1))
        accepted.append(moves)
    visits = counts(torch.stack(states, dim=1), log_target)
    share = visits / visits.sum(dim=-1, keepdim=True).clamp(min=1.0)
    return MetropolisChain(share, state, torch.stack(accepted, dim=1).to(log_target.dtype).mean(dim=-1))
