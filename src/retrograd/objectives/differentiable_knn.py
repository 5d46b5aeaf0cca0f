"""Differentiable k nearest neighbours: the best candidates as R soft slots, read in one prompt, trained by one loss.

    s_i = T·log p(z_i|x)                      the similarity, less a constant per query
    M best candidates, then w^r = softmax(…)  the slots, by N3, by SoftSort, or hard (`retrograd.objectives.relaxed`)
    T, or T_x with perplexity(softmax(s / T_x)) = P for each query x

The similarity, not the log-probability, is what N3 must be given: its log(1 - w) is in units of the score, and scaled
by 1/T together with it the first slot's candidate returns as an equal of the second's.

Makino, Miwa & Sasaki 2024, "ETRAG" (arXiv 2406.03790); Plötz & Roth 2018 (arXiv 1810.12575). A scale per point from a
target perplexity: Hinton & Roweis 2002, "Stochastic Neighbor Embedding"; its gradient here is by implicit functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

from retrograd.deferred import Bool, Float, Int, Tensor, torch
from retrograd.objectives.checks import check_choice, check_count, check_log_likelihood
from retrograd.objectives.functional import (
    ABSENT,
    in_full_precision,
    masked_log_softmax,
    masked_logsumexp,
    put_back,
    weighted_sum,
)
from retrograd.objectives.objective import CandidateScores, Estimate, Goal, Likelihood, Reads
from retrograd.objectives.relaxed import Operator, describe_slots, slot_weights
from retrograd.objectives.scoring import mean_over_queries, mean_where, prior_alone
from retrograd.types import UserError

__all__ = ["Neighbourhood", "RelaxedTopK", "Selection", "sharpness"]

FLATTEST, SHARPEST = 1e-9, 1e3
"""Bounds of γ: a query is at most a thousand times as sharp as the retriever, which bounds the gradient of ties."""

HALVINGS = 50
"""Number of halvings of an interval of 28 nats in log γ: down to the rounding of double precision."""

TOLERANCE = 1e-6
"""In nats of entropy: a query further off than this stands at a bound of γ."""

# ---------------------------------------------------------------------------------------------------------------------
# A temperature for each query
# ---------------------------------------------------------------------------------------------------------------------


def sharpness(logit: Float[Tensor, "B M"], perplexity: float) -> tuple[Float[Tensor, "B 1"], Bool[Tensor, "B 1"]]:
    """Return γ with exp(entropy(softmax(γ·logit))) = ``perplexity``, differentiable, and whether it was reached.

    By bisection in log γ: the entropy H falls in γ. With mean and variance under p = softmax(γ·logit), dH/d log γ is
    -γ² Var and dH/d logit_i is -γ² p_i (logit_i - mean), so by the implicit function theorem

        d log γ / d logit_i = -p_i (logit_i - mean) / Var:

    a change that only spreads the logits changes no weight, and gets no gradient. γ is a constant where the target
    cannot be met: near `FLATTEST` with fewer candidates than the target (the weights are then equal), `SHARPEST` where
    more than that many stand within about a thousandth of a nat of the best.
    """
    present = logit > ABSENT
    here = logit.masked_fill(~present, 0.0)
    # Solved in double precision: fp32 entropies would leave γ, and every gradient after it, to the rounding of a batch.
    fixed = _below_best(logit.detach().double())
    gamma, reached = _solve(fixed, math.log(perplexity))
    slope = _slope(fixed, masked_log_softmax(gamma * fixed).exp()).masked_fill(~reached, 0.0).to(logit.dtype)
    # γ·(1 + slope·(logit - its own value)) has the value γ and the gradient γ·slope.
    return gamma.to(logit.dtype) * (1.0 + (slope * (here - here.detach())).sum(dim=-1, keepdim=True)), reached


def _below_best(logit: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Subtract the largest logit of each row, a constant: rounding is finest near 0, where the best lie."""
    if logit.shape[1] == 0:
        return logit
    best = logit.detach().amax(dim=-1, keepdim=True)
    return logit - best.masked_fill(best == ABSENT, 0.0)


def _solve(logit: Float[Tensor, "B M"], target: float) -> tuple[Float[Tensor, "B 1"], Bool[Tensor, "B 1"]]:
    """Return γ for logits of which the best is 0, and whether the entropy there is the target in nats."""
    finite = logit.masked_fill(logit == ABSENT, 0.0)
    low, high = (logit.new_full((len(logit), 1), math.log(bound)) for bound in (FLATTEST, SHARPEST))

    def entropy_at(log_gamma: Tensor) -> Tensor:
        """Return log Z - γ·mean, with Z ≥ 1 because the best is 0."""
        gamma = log_gamma.exp()
        weight = (gamma * logit).exp()
        total = weight.sum(dim=-1, keepdim=True).clamp(min=1.0)
        return total.log() - gamma * (weight * finite).sum(dim=-1, keepdim=True) / total

    for _ in range(HALVINGS):
        middle = (low + high) / 2
        flatter = entropy_at(middle) > target
        low, high = torch.where(flatter, middle, low), torch.where(flatter, high, middle)
    return low.exp(), (entropy_at(low) - target).abs() < TOLERANCE


def _slope(logit: Float[Tensor, "B M"], weight: Float[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """Return d log γ / d logit = -p (logit - mean) / Var; 0 where nothing varies."""
    away = weight * (logit - weighted_sum(weight, logit).unsqueeze(-1)).masked_fill(weight == 0, 0.0)
    variance = weighted_sum(away, logit).unsqueeze(-1)
    return -away / variance.masked_fill(variance <= 0, math.inf)


# ---------------------------------------------------------------------------------------------------------------------
# From scores to slots
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Neighbourhood:
    """The M best candidates of each query, best first: similarities, and the temperature of their softmax.

    ``score`` is the similarity less a constant per query, ``-inf`` for absence; ``column`` is where each stands among
    the ``width`` candidates.
    """

    column: Int[Tensor, "B M"]
    score: Float[Tensor, "B M"]
    temperature: Float[Tensor, "#B 1"]
    width: int

    def weights(self, slots: int, operator: Operator) -> Float[Tensor, "B {slots} K"]:
        """Return the R slots over all candidates; 0 outside the neighbourhood."""
        near = slot_weights(self.score, slots, self.temperature, operator)
        everywhere = near.new_zeros(len(near), slots, self.width)
        return everywhere.scatter(2, self.column.unsqueeze(1).expand_as(near), near)

    def log_vote(self) -> Float[Tensor, "B K"]:
        """Return log softmax(s / T), the first soft slot; ``-inf`` outside the neighbourhood."""
        return put_back(masked_log_softmax(_times(self.score, 1.0 / self.temperature)), self.column, self.width)


@dataclass(frozen=True)
class Selection:
    """R soft slots from the scores of K candidates: the same in training and in use.

    ``best`` keeps the M candidates with the largest log p(z|x) (equal ones in the order of their columns; 0 keeps all)
    before anything is relaxed. ``operator``, on what is left:

    ============  =====================================================================================================
    ``softsort``  row r = softmax(-|s_[r] - s| / T): nearest to the hard choice; derivatives ≤ 1/(2T)
    ``n3``        the published recursion; derivatives may grow by 1/T from slot to slot (`successive_softmax`)
    ``hard``      one candidate a slot, with the gradient of ``softsort``
    ``hard_n3``   the same with the gradient of ``n3``
    ============  =====================================================================================================

    T is the prior's own (`CandidateScores.temperature`, fixed or learned there; 1 where there is none). With a
    ``perplexity`` above 1 it is solved for each query instead, so that softmax(s / T) over the best M has that
    perplexity (`sharpness`, differentiated), and the retriever's T no longer matters. A query that cannot have it (it
    has fewer candidates, or more equal ones) comes as near as it can, with weights that are constants: ties cannot be
    distinguished by pulling a thousand times as hard. A null candidate is a column like any other.

    Raises `UserError` for impossible settings, `ValueError` for scores that are no log-probabilities.
    """

    slots: int = 2
    best: int = 0
    operator: Operator = "softsort"
    perplexity: float = 0.0

    def __post_init__(self) -> None:
        _check_selection(self, self.slots, self.best, self.operator, self.perplexity)

    @property
    def is_hard(self) -> bool:
        """Return whether each slot holds one passage, so that only the order of the scores matters when answering."""
        return self.operator.startswith("hard")

    def __call__(self, scores: CandidateScores) -> Float[Tensor, "B R K"]:
        """Return weights whose rows sum to 1; absent candidates and slots beyond the candidates have 0."""
        return self.neighbourhood(scores).weights(self.slots, self.operator)

    def log_vote(self, scores: CandidateScores) -> Float[Tensor, "B K"]:
        """Return log of each candidate's share in a vote of the neighbours: p(z|x) over the best M, at T."""
        return self.neighbourhood(scores).log_vote()

    def neighbourhood(self, scores: CandidateScores) -> Neighbourhood:
        """Return the best candidates, of which slots and votes are made."""
        log_prior, column = prior_alone(self, scores).sort(dim=-1, descending=True, stable=True)
        width = log_prior.shape[1]
        if self.best:
            log_prior, column = log_prior[:, : self.best], column[:, : self.best]
        scale = log_prior.new_ones(1, 1)
        if scores.temperature is not None:
            scale = scores.temperature.to(log_prior.dtype).view(1, 1)
        score = _times(_below_best(log_prior), scale)
        if self.perplexity == 0:
            return Neighbourhood(column, score, scale, width)
        gamma, reached = sharpness(log_prior, self.perplexity)
        score, temperature = (
            torch.where(reached, value, value.detach()) for value in (score, (scale / gamma).expand(len(score), 1))
        )
        return Neighbourhood(column, score, temperature, width)


def _check_selection(owner: object, slots: int, best: int, operator: str, perplexity: float) -> None:
    """Raise `UserError` for settings that no `Selection` can have."""
    check_count(owner, "slots", slots)
    check_choice(owner, "operator", operator, get_args(Operator))
    name = type(owner).__name__
    if best != 0 and best < slots:
        raise UserError(f"{name}: best is {best!r}; it must be at least slots = {slots}, or 0 for all")
    if perplexity != 0 and not 1.0 < perplexity < math.inf:
        raise UserError(
            f"{name}: perplexity is {perplexity!r}; it must be above 1 and finite, or 0 for the retriever's temperature"
        )


def _times(score: Float[Tensor, "B M"], factor: Float[Tensor, "#B 1"]) -> Float[Tensor, "B M"]:
    """Return score·factor, where absent scores stay absent and give the factor no gradient (-inf·0 would be NaN)."""
    absent = score == ABSENT
    return (score.masked_fill(absent, 0.0) * factor).masked_fill(absent, ABSENT)


# ---------------------------------------------------------------------------------------------------------------------
# The objective
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RelaxedTopK:
    """Differentiable kNN: one prompt with R soft slots; the likelihood's gradient reaches the retriever through them.

    **Equation.** -log p(y|x, w) - ``vote_weight``·log Σ_i p_i [z_i supports y]. w are the slots of `Selection` with the
    same settings, p its first soft slot, softmax(s / T) over the ``best`` M candidates: the share that a vote of the
    neighbours gives to the target. Support is the task's own cheap test (`Likelihood.supports_at`).

    **Paper.** Makino, Miwa & Sasaki 2024, "ETRAG" (arXiv 2406.03790), with N3 of Plötz & Roth 2018 (arXiv 1810.12575);
    SoftSort: Prillo & Eisenschlos 2020 (arXiv 2006.16038). The vote as a loss: Goldberger et al. 2004, "Neighbourhood
    Components Analysis", in its logarithmic form.

    **Bias.** None with the soft operators: the model with soft slots is the model that answers, and this is the exact
    gradient of its log-likelihood. It is not log Σ_z p(z|x) p(y|x,z), of which a mixture of inputs is no estimate; as
    T → 0 it becomes the likelihood of the R best. ``hard`` and ``hard_n3`` have the value of the R best and a soft
    gradient, which nothing makes exact. Candidates outside the best M get no gradient.

    **Gradient.** Prior logits, and a learned T, get that of the slots and of the vote; the generator ∇ log p of the one
    prompt. The vote trains the prior alone. Which candidates support the target changes no weight. There is no
    posterior.

    **Cost.** One generator forward with gradient, R slots in its prompt; none without gradient. The vote costs none.

    **Padding.** An absent candidate (``-inf``) has weight 0 and gradient 0, and no vote. With fewer candidates than
    slots the last slots are empty; a query without any is answered from the prompt without passages. Where none of the
    best M supports the target the vote adds 0.

    Example::

        print(rg.RelaxedTopK(slots=2).selection)
    """

    trains_retriever = True
    trains_generator = True
    needs_posterior = False
    reads = Reads.SLOTS
    leaves_one_out = False
    mixes_tokens = False
    goal = Goal.OTHER
    needs_log_normaliser = False

    slots: int = 2
    best: int = 0
    operator: Operator = "softsort"
    perplexity: float = 0.0
    vote_weight: float = 0.0

    def __post_init__(self) -> None:
        _check_selection(self, self.slots, self.best, self.operator, self.perplexity)
        if not 0.0 <= self.vote_weight < math.inf:
            raise UserError(f"RelaxedTopK: vote_weight is {self.vote_weight!r}; it must be at least 0 and finite")

    @property
    def selection(self) -> Selection:
        """Return how candidates become slots when the trained model answers."""
        return Selection(self.slots, self.best, self.operator, self.perplexity)

    def __call__(self, scores: CandidateScores, likelihood: Likelihood, rng: torch.Generator) -> Estimate:
        """Return the mean over queries, in nats. ``rng`` is not used."""
        near = self.selection.neighbourhood(scores)
        weight = near.weights(self.slots, self.operator)
        log_likelihood = in_full_precision(likelihood.at_mixture(weight))
        check_log_likelihood(log_likelihood)
        log_prior = in_full_precision(scores.log_prior.detach())
        diagnostics = describe_slots(log_prior, weight.detach().unsqueeze(0), log_likelihood.detach())
        loss = -mean_over_queries(log_likelihood)
        if self.vote_weight == 0:
            return Estimate(loss, diagnostics)
        log_vote, votes = self._vote(near, likelihood)
        return Estimate(loss - self.vote_weight * mean_over_queries(log_vote), diagnostics | votes)

    def _vote(
        self, near: Neighbourhood, likelihood: Likelihood
    ) -> tuple[Float[Tensor, " B"], dict[str, Float[Tensor, ""]]]:
        """Return log Σ_i p_i [z_i supports y], ``-inf`` where none does, and the diagnostics of the vote."""
        log_vote = near.log_vote()
        voting = log_vote > ABSENT
        column = torch.arange(near.width, device=log_vote.device).expand_as(log_vote).masked_fill(~voting, -1)
        supports = likelihood.supports_at(column)
        log_share = masked_logsumexp(log_vote.masked_fill(~supports, ABSENT))
        present = voting.any(dim=-1)
        return log_share, {
            "vote": mean_where(log_share.exp(), present),
            "unsupported_share": mean_where((~supports.any(dim=-1)).to(log_share.dtype), present),
        }
