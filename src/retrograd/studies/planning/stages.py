"""The stages of an experiment before there is a model, and the prompts that each makes the generator read.

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
from retrograd.experiments.settings import NOTHING_TRAINED
from retrograd.objectives import CandidateScores, FrozenRetriever, Objective, TopKMarginal
from retrograd.objectives.objective import TokenLogLikelihood
from retrograd.training.sampling.batches import steps_in
from retrograd.training.stage import Pace
from retrograd.types import UserError

__all__ = ["CountingLikelihood", "PlannedStage", "Prompts", "planned_stages", "prompts_per_query"]

_QUERIES = 64
_MOST_CANDIDATES = 100_000


@dataclass(frozen=True)
class PlannedStage:
    """A stage of `retrograd.experiments.stages`, in what decides its cost. ``examples`` is None where it is not
    known yet.

    ``passages`` is K of each retriever, 0 in a ``copying`` stage for the whole base; ``pool`` the explorers of a shared
    pool, -1 without one.
    """

    name: str
    objective: Objective
    epochs: int
    batch_size: int
    micro_batch: int
    passages: int
    examples: int | None
    tail: int = 0
    pool: int = -1
    copying: bool = False
    trains_retriever: bool = False
    trains_generator: bool = False

    def __post_init__(self) -> None:
        Pace(self.epochs, self.batch_size, 0.0, 0.0, micro_batch=self.micro_batch)  # refuses what training would

    @property
    def steps(self) -> int | None:
        return None if self.examples is None else steps_in(self.examples, self.batch_size, self.epochs)

    @property
    def queries(self) -> int:
        """Those of a step that is not the last of an epoch: no more than there are examples."""
        return self.batch_size if self.examples is None else min(self.batch_size, max(1, self.examples))

    @property
    def full_steps(self) -> float | None:
        """Steps, the smaller last one of an epoch counted as the part that it is."""
        return None if self.examples is None else self.epochs * self.examples / self.queries

    @property
    def at_once(self) -> int:
        """Queries held in memory at once."""
        return min(self.micro_batch or self.queries, self.queries)


def planned_stages(experiment: Experiment, examples: int | None, supports: bool) -> list[PlannedStage]:
    """Those that have anything to do; ``supports`` says whether the task has a test of support to warm up by.

    Raises `UserError` where there are none, and for a pace that training would refuse.
    """
    e, t = experiment, experiment.training
    learns = e.objective.trains_retriever and e.retriever.trained != "none"
    scales = t.scale_learning_rate * e.retriever.learns_scales
    main = PlannedStage("training", e.objective, t.epochs, t.batch_size, t.micro_batch, t.passages, examples, t.tail)
    main = replace(
        main,
        pool=t.explorers if t.pool else -1,
        trains_retriever=learns and max(t.retriever_learning_rate, scales) > 0,
        trains_generator=t.generator_learning_rate > 0,
    )
    found = [
        _warm_start(e, examples, scales) if e.warm_start.epochs > 0 and supports and learns else None,
        _masking(e, main, learns, scales) if e.masking.epochs > 0 else None,
        main if t.epochs > 0 else None,
        _second_stage(e, main) if e.second_stage.epochs > 0 else None,
    ]
    planned = [stage for stage in found if stage is not None]
    if not planned:
        raise UserError(f"{e.name} trains nothing, so that there is nothing to plan; set training.epochs to 1, say")
    if not (main.trains_retriever or main.trains_generator):
        raise UserError(NOTHING_TRAINED)
    return planned


def _warm_start(experiment: Experiment, examples: int | None, scales: float) -> PlannedStage:
    w = experiment.warm_start
    objective = experiment.objective if experiment.selection is None else TopKMarginal()
    stage = PlannedStage("warm start", objective, w.epochs, w.batch_size, 0, w.passages, examples)
    return replace(stage, copying=True, trains_retriever=max(w.learning_rate, scales) > 0)


def _masking(experiment: Experiment, main: PlannedStage, learns: bool, scales: float) -> PlannedStage:
    """How many sentences can be masked, only the base can tell."""
    m = experiment.masking
    return replace(
        main,
        name="masking",
        epochs=m.epochs,
        examples=None,
        trains_retriever=learns and max(m.retriever_learning_rate, scales) > 0,
        trains_generator=m.generator_learning_rate > 0,
    )


def _second_stage(experiment: Experiment, main: PlannedStage) -> PlannedStage:
    s, together = experiment.second_stage, experiment.second_stage.reading == "together"
    return replace(
        main,
        name="second stage",
        objective=FrozenRetriever("together" if together else "marginal"),
        epochs=s.epochs,
        batch_size=s.batch_size or main.batch_size,
        passages=s.passages or main.passages,
        tail=0 if together else main.tail,
        pool=-1,
        trains_retriever=False,
        trains_generator=True,
    )


@dataclass(frozen=True)
class Prompts:
    """What the generator reads for one query, at most: prompts without gradient, prompts with, passages in each.

    ``candidates`` is K of the objective: passages that are embedded with gradient where both towers learn.
    """

    without_gradient: float
    with_gradient: float
    passages_each: int
    candidates: int


def prompts_per_query(stage: PlannedStage, base: int, posterior: bool, null_passage: bool) -> Prompts:
    """At most, for flat candidates: the mean over 64 queries. Raises `UserError` for more candidates than 100,000."""
    if stage.copying:
        return Prompts(0.0, 0.0, 0, min(stage.passages, base) or base)
    if stage.passages == 0:
        candidates = 0
    else:
        both = posterior and stage.objective.needs_posterior
        candidates = min(base, stage.passages * (1 + both) + stage.tail)
        if stage.pool >= 0:
            candidates = min(base, stage.at_once * stage.passages + stage.pool)
        candidates += null_passage
    if candidates > _MOST_CANDIDATES:
        raise UserError(
            f"{stage.name} compares {candidates:,} passages for each query; lower training.passages, training.tail or "
            f"training.explorers to {_MOST_CANDIDATES:,} in all"
        )
    counter = CountingLikelihood(candidates)
    flat = torch.full((_QUERIES, candidates), -math.log(max(candidates, 1)))
    tail = torch.zeros_like(flat) if stage.tail and candidates else None
    scores = CandidateScores(flat, flat if stage.objective.needs_posterior else None, None, tail, torch.tensor(1.0))
    stage.objective(scores, counter, torch.Generator().manual_seed(0))
    return Prompts(
        counter.without_gradient / _QUERIES, counter.with_gradient / _QUERIES, counter.passages_each, candidates
    )


class CountingLikelihood:
    """Every target has the same likelihood under every passage; what is asked for is counted."""

    def __init__(self, candidates: int) -> None:
        self.without_gradient = self.with_gradient = self.passages_each = 0
        self._candidates = candidates

    def _asked(self, prompts: int, passages: int) -> None:
        self.passages_each = max(self.passages_each, passages)
        if torch.is_grad_enabled():
            self.with_gradient += prompts
        else:
            self.without_gradient += prompts

    def at(self, column: Int[Tensor, "B M"]) -> Float[Tensor, "B M"]:
        self._asked(int((column >= 0).sum()), 1)
        return torch.where(column >= 0, -1.0, -torch.inf)

    def tokens_at(self, column: Int[Tensor, "B M"]) -> TokenLogLikelihood:
        present = torch.ones(len(column), 1, dtype=torch.bool, device=column.device)
        return TokenLogLikelihood(self.at(column).unsqueeze(-1), present)

    def together(self, column: Int[Tensor, "B M"]) -> Float[Tensor, " B"]:
        self._asked(len(column), column.shape[1])
        return torch.full((len(column),), -1.0)

    def at_mixture(self, weight: Float[Tensor, "B R K"]) -> Float[Tensor, " B"]:
        self._asked(len(weight), 0)
        return torch.full((len(weight),), -1.0)

    def supports_at(self, column: Int[Tensor, "B M"]) -> Bool[Tensor, "B M"]:
        return column >= 0
