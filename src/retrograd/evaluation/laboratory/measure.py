"""The laboratory: bias, variance and cost of gradient estimators, at fixed parameters, against the exact gradient.

Comparing estimators by whole training runs compares temperatures, learning rates and luck as well. Here the parameters
and the batch stand still. For an estimator ĝ of a gradient g, over independent redraws,

    relative bias = ‖E ĝ - g‖ / ‖g‖      relative variance = tr Cov(ĝ) / ‖g‖²      error = bias² + variance

for each place where an objective meets a model: the logits of the prior retriever, those of the posterior retriever,
and the log-likelihoods that the generator gives to the target tokens, per distinct prompt. The gradient of any
parameter is a linear image of these three. The posterior's reference is the gradient of KL(p(z|x,y) ‖ q), which JSA
and wake-sleep estimate; the variational objectives and VIMCO train q towards another end, and their distance from it
is no mistake. Nor is that of an objective with another goal than log p(y|x) (`Goal`): where its goal can be enumerated,
the same draws are compared with the gradient of that as well.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.evaluation.laboratory.tables import (
    Gradients,
    Tables,
    TabulatedLikelihood,
    candidate_scores,
    to_logits,
)
from retrograd.objectives import CandidateScores, Estimate, Goal, Objective, functional
from retrograd.objectives.functional import columns_where, counts, propose, take

__all__ = ["Component", "Estimator", "Measurement", "measure"]

_CELLS = 2**24
_ROUNDING = 1e-12
"""Equal draws differ from their mean by no more than this share of their squares, in fp64: no variance."""
_EARLIER_VISITS = 4
"""Number of visits of a carried chain before it is measured: by then its state is good to a percent."""


@dataclass(frozen=True)
class Estimator:
    """An objective with the candidates it is given: the best ``passages`` of each retriever it uses, or all there are.

    ``tail`` more are drawn from the prior outside the best at every redraw, and stand for all that is there; with a
    ``tail_posterior_share`` α from (1 - α) p + α q.
    ``redraws`` bounds how often it is redrawn where each draw runs the generator (0: as often as the others).
    """

    name: str
    objective: Objective
    passages: int
    candidates: Literal["best", "all"] = "best"
    redraws: int = 0
    tail: int = 0
    tail_posterior_share: float = 0.0

    def draw_candidates(
        self, tables: Tables, copies: int, rng: torch.Generator
    ) -> tuple[Int[Tensor, "RB K"], Float[Tensor, "RB K"] | None]:
        """Return the candidates of R copies of the batch, and how many passages each stands for with a sampled tail."""
        best = self._columns(tables).repeat(copies, 1)
        if self.tail == 0:
            return best, None
        log_proposal = self._log_proposal(tables).repeat(copies, 1)
        is_best = counts(best, log_proposal) > 0
        times = counts(propose(log_proposal.masked_fill(is_best, -torch.inf), self.tail, rng), log_proposal)
        columns = columns_where(is_best | (times > 0))
        draws = take(times, columns).masked_fill(columns < 0, 0.0)
        return columns, functional.log_multiplicity(take(log_proposal, columns), draws)

    def _log_proposal(self, tables: Tables) -> Float[Tensor, "B U"]:
        """Return the distribution that the tail is drawn from, over the whole base."""
        share = self.tail_posterior_share
        if share == 0.0 or tables.log_posterior is None:
            return tables.log_prior
        return torch.logaddexp(tables.log_prior + math.log1p(-share), tables.log_posterior + math.log(share))

    def _columns(self, tables: Tables) -> Int[Tensor, "B K"]:
        """Return the best candidates as columns of the tables."""
        k = tables.log_prior.shape[1] if self.candidates == "all" else self.passages
        return tables.best(k, self.objective.needs_posterior)


@dataclass(frozen=True)
class Component:
    """Errors of the estimate of one part of the gradient; ``cosine`` is a draw's with the reference, on average.

    ``trace`` is tr Cov(ĝ) itself, not relative to ‖g‖².
    """

    relative_bias: float
    relative_variance: float
    cosine: float
    trace: float

    @property
    def error(self) -> float:
        """Mean squared error over the squared norm of the reference; 1 is what no update at all would have."""
        return self.relative_bias**2 + self.relative_variance


@dataclass(frozen=True)
class Measurement:
    """Errors and costs of one estimator. A component is None where the objective sends nothing there by design.

    ``diagnostics`` are the objective's own, meaned over queries and redraws. ``goal`` is what the objective maximises;
    where that is not the marginal and can be enumerated, ``own`` has the errors against the gradient of the goal, by
    part, and is else empty.
    """

    name: str
    prior: Component | None
    posterior: Component | None
    generator: Component | None
    diagnostics: dict[str, float]
    goal: Goal = Goal.MARGINAL
    own: dict[str, Component | None] = field(default_factory=dict)

    @property
    def parts(self) -> dict[str, Component | None]:
        """The three by name."""
        return {"prior": self.prior, "posterior": self.posterior, "generator": self.generator}


def measure(estimator: Estimator, tables: Tables, redraws: int, rng: torch.Generator) -> Measurement:
    """Redraw the estimator ``redraws`` times (at least 2) on the tables and compare it with the exact gradient, and
    with that of its own goal where it has another one.
    """
    if redraws < 2:
        raise ValueError(f"redraws is {redraws}; a variance needs at least 2")
    draws = min(redraws, estimator.redraws) if estimator.redraws else redraws
    reference, goal = tables.exact(), estimator.objective.goal
    moments = _moments(reference)
    own = {} if goal in (Goal.MARGINAL, Goal.OTHER) else _moments(tables.exact_for(goal))
    totals: dict[str, float] = {}
    block = max(1, min(draws, _CELLS // max(1, reference.generator.numel())))
    for start in range(0, draws, block):
        copies = min(block, draws - start)
        gradients, diagnostics = _draw(estimator, tables, copies, rng)
        for name, moment in [*moments.items(), *own.items()]:
            moment.add(_part(gradients, name), copies)
        for name, value in diagnostics.items():
            totals[name] = totals.get(name, 0.0) + value * copies / draws
    components = {name: moment.component() for name, moment in moments.items()}
    prior, posterior, generator = (components.get(name) for name in ("prior", "posterior", "generator"))
    of_goal = {name: moment.component() for name, moment in own.items()}
    return Measurement(estimator.name, prior, posterior, generator, totals, goal, of_goal)


def _moments(reference: Gradients) -> dict[str, _Moments]:
    """Return empty moments of each part of a reference."""
    names = ["prior"] + ["posterior"] * (reference.posterior is not None) + ["generator"]
    return {name: _Moments(_part(reference, name)) for name in names}


def _draw(
    estimator: Estimator, tables: Tables, copies: int, rng: torch.Generator
) -> tuple[Gradients, dict[str, float]]:
    """Return the gradients of ``copies`` independent estimates, one under the other, and their diagnostics."""
    wide, log_multiplicity = estimator.draw_candidates(tables, copies, rng)

    def visit(previous: Int[Tensor, " RB"] | None) -> tuple[Estimate, CandidateScores, TabulatedLikelihood]:
        scores = replace(candidate_scores(tables, wide, copies, previous), log_multiplicity=log_multiplicity)
        likelihood = TabulatedLikelihood(tables, wide, copies)
        return estimator.objective(scores, likelihood, rng), scores, likelihood

    estimate, scores, likelihood = visit(None)
    if estimate.last is not None:
        for _ in range(_EARLIER_VISITS):
            estimate, scores, likelihood = visit(estimate.last)
    leaves = [scores.log_prior, likelihood.tokens] + [leaf for leaf in (scores.log_posterior,) if leaf is not None]
    # The loss is the mean over queries; times their number it is the sum, whose gradients are each query's own.
    prior, tokens, *rest = torch.autograd.grad(estimate.loss * len(scores.log_prior), leaves, allow_unused=True)
    posterior = None
    if tables.log_posterior is not None:
        posterior = to_logits(rest[0], tables.log_posterior.repeat(copies, 1), wide)
    gradients = Gradients(
        to_logits(prior, tables.log_prior.repeat(copies, 1), wide),
        posterior,
        tables.per_prompt(_scatter_to_table(tokens, wide, tables.log_prior.shape[1], likelihood.tokens)),
    )
    return gradients, {name: float(value) for name, value in estimate.diagnostics.items()}


def _scatter_to_table(
    gradient: Float[Tensor, "B K T"] | None, columns: Int[Tensor, "B K"], width: int, like: Float[Tensor, "B K T"]
) -> Float[Tensor, "B U T"]:
    """Put a gradient in token log-likelihoods where the candidates stand in the tables."""
    table = like.new_zeros(len(columns), width + 1, like.shape[2])
    if gradient is not None:
        spare = columns.masked_fill(columns < 0, width).unsqueeze(-1).expand_as(gradient)
        table.scatter_(1, spare, gradient)
    return table[:, :-1]


def _part(gradients: Gradients, name: str) -> Float[Tensor, "B size"]:
    """Return one of the three gradients, flat per query."""
    parts = {"prior": gradients.prior, "posterior": gradients.posterior, "generator": gradients.generator}
    gradient = parts[name]
    assert gradient is not None
    return gradient.flatten(start_dim=1)


class _Moments:
    """Mean, variance and direction of draws, without keeping them."""

    def __init__(self, reference: Float[Tensor, "B size"]) -> None:
        self._reference = reference
        self._sum = torch.zeros_like(reference)
        self._squares = 0.0
        self._cosine = 0.0
        self._draws = 0

    def add(self, gradients: Float[Tensor, "draws size"], copies: int) -> None:
        """Add draws that stand one under the other, ``copies`` times the whole batch."""
        by_copy = gradients.view(copies, *self._reference.shape)
        self._sum += by_copy.sum(dim=0)
        self._squares += float(by_copy.square().sum())
        length = by_copy.flatten(1).norm(dim=-1).clamp(min=torch.finfo(gradients.dtype).tiny)
        along = (by_copy * self._reference).flatten(1).sum(dim=-1)
        self._cosine += float((along / length).sum()) / self._length()
        self._draws += copies

    def component(self) -> Component | None:
        """Return bias and variance so far; None if every draw was zero: the objective sends nothing here."""
        if self._squares == 0.0:
            return None
        mean = self._sum / self._draws
        # Σ‖g - mean‖² / (n - 1) is unbiased for the trace of the covariance; ‖mean - reference‖² holds 1/n of it.
        spread = self._squares - self._draws * float(mean.square().sum())
        variance = spread / (self._draws - 1) if spread > _ROUNDING * self._squares else 0.0
        squared_bias = float((mean - self._reference).square().sum()) - variance / self._draws
        scale = self._length() ** 2
        return Component(
            relative_bias=math.sqrt(max(squared_bias, 0.0) / scale),
            relative_variance=variance / scale,
            cosine=self._cosine / self._draws,
            trace=variance,
        )

    def _length(self) -> float:
        return max(float(self._reference.norm()), torch.finfo(self._reference.dtype).tiny)
