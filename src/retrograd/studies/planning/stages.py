"""The number of prompts that the generator reads in each stage, counted before there is a model.

What an objective costs is counted by asking it: it scores flat candidates under a likelihood that only counts. Flat is
the most it can cost: nothing is pruned, and all draws differ where they can. Where the model is sure, JSA, wake-sleep
and the variational objectives go backward through fewer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.stage_description import StageDescription, describe_stages
from retrograd.objectives import CandidateScores
from retrograd.objectives.objective import TokenLogLikelihood
from retrograd.types import UserError

__all__ = ["CountingLikelihood", "PromptsPerQuery", "plan_stages", "prompts_per_query"]

_QUERIES = 64
_MOST_CANDIDATES = 100_000


def plan_stages(
    experiment: Experiment, examples: int | None, supports: bool, masked: int | None = None
) -> list[StageDescription]:
    """Return the stages that a run would have, for a plan, with ``masked`` sentences where there are any.

    Raises `UserError` where there are no stages.
    """
    stages = describe_stages(experiment, supports, examples)
    if not stages:
        raise UserError(
            f"{experiment.name} trains nothing, so that there is nothing to plan; set training.epochs to 1, say"
        )
    return [replace(stage, examples=masked) if stage.is_masking else stage for stage in stages]


@dataclass(frozen=True)
class PromptsPerQuery:
    """The prompts of one query, at most: prompts without gradient, prompts with, passages in each.

    ``candidates`` is K of the objective: passages that are embedded with gradient where both towers learn.
    """

    without_gradient: float
    with_gradient: float
    passages_each: int
    candidates: int


def prompts_per_query(stage: StageDescription, base_size: int, posterior: bool, null_passage: bool) -> PromptsPerQuery:
    """Return the prompts of a query at most, for flat candidates: the mean over 64 queries.

    Raises `UserError` for more candidates than 100,000.
    """
    evidence = stage.evidence
    both = posterior and stage.objective.needs_posterior
    candidates = evidence.candidates_per_query(base_size, stage.at_once, both) if evidence.retrieves else 0
    if not evidence.uses_generator:
        return PromptsPerQuery(0.0, 0.0, 0, candidates)
    candidates += null_passage * evidence.retrieves
    if candidates > _MOST_CANDIDATES:
        raise UserError(
            f"{stage.name} compares {candidates:,} passages for each query; lower training.passages, training.tail or "
            f"training.explorers to {_MOST_CANDIDATES:,} in all"
        )
    counter = CountingLikelihood(candidates)
    flat = torch.full((_QUERIES, candidates), -math.log(max(candidates, 1)))
    tail = torch.zeros_like(flat) if evidence.tail and candidates else None
    scores = CandidateScores(flat, flat if stage.objective.needs_posterior else None, None, tail, torch.tensor(1.0))
    stage.objective(scores, counter, torch.Generator().manual_seed(0))
    return PromptsPerQuery(
        counter.without_gradient / _QUERIES, counter.with_gradient / _QUERIES, counter.passages_each, candidates
    )


class CountingLikelihood:
    """A likelihood that is equal for every passage, and counts the columns that are asked of it."""

    def __init__(self, candidates: int) -> None:
        self.without_gradient = self.with_gradient = self.passages_each = 0
        self._candidates = candidates

    def _count_prompts(self, prompts: int, passages: int) -> None:
        self.passages_each = max(self.passages_each, passages)
        if torch.is_grad_enabled():
            self.with_gradient += prompts
        else:
            self.without_gradient += prompts

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        self._count_prompts(int((column >= 0).sum()), 1)
        return torch.where(column >= 0, -1.0, -torch.inf)

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        present = torch.ones(len(column), 1, dtype=torch.bool, device=column.device)
        return TokenLogLikelihood(self.at(column).unsqueeze(-1), present)

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        self._count_prompts(len(column), column.shape[1])
        return torch.full((len(column),), -1.0)

    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        self._count_prompts(len(weight), 0)
        return torch.full((len(weight),), -1.0)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        return column >= 0
