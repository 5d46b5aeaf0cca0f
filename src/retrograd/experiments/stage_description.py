"""Describe the stages of an experiment as plain values, of which both the run and its plan are made.

The order is warm start, masking, training, second stage. The retriever is warmed first, because a generator learns
nothing from useless passages and teaches nothing while it ignores them. Then both learn from masked sentences of the
base, and after these from the data themselves, so that what the model ends with is what it is asked for: the order of
REALM (Guu et al. 2020, arXiv 2002.08909), which warms the retriever, pre-trains on masked sentences, and fine-tunes. In
the second stage only the generator learns.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from retrograd.data.examples import TargetChoice
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.settings import NOTHING_TRAINED, TrainingSettings
from retrograd.index.settings import NormaliserEstimation
from retrograd.objectives import Objective, Reads, generator_only, retriever_warm_start
from retrograd.rag.candidates import Pool
from retrograd.training.refresh.policies import EverySteps, Never, RefreshPolicy
from retrograd.training.sampling.batches import count_steps
from retrograd.training.stage import CopyEvidence, GeneratorEvidence, LearningParts, Pace, StageEvidence, learning_parts
from retrograd.types import UserError

__all__ = ["StageDescription", "describe_stages", "trains_generator", "trains_retriever"]


@dataclass(frozen=True)
class StageDescription:
    """Description of what a stage trains, by which objective, on which candidates and at which pace.

    ``examples`` counts those that it trains on, None where that is not known. ``is_masking`` says that they are masked
    sentences of the base. ``moves_retriever`` is False where the retriever rests, whatever the pace says.
    """

    name: str
    objective: Objective
    evidence: StageEvidence
    pace: Pace
    refresh: RefreshPolicy
    targets: TargetChoice
    examples: int | None
    moves_retriever: bool
    is_masking: bool = False

    @property
    def is_copying(self) -> bool:
        """Return whether the task's own test scores the candidates, so that the generator is not used."""
        return not self.evidence.uses_generator

    @property
    def compares_all(self) -> bool:
        """Return whether each query is compared with the whole base."""
        return self.evidence.retrieves and not self.evidence.needs_log_normaliser

    @property
    def learns(self) -> LearningParts:
        """Return the parts that learn."""
        return learning_parts(self.objective, self.pace, retriever_rests=not self.moves_retriever)

    @property
    def steps(self) -> int | None:
        """Return the number of optimiser steps, or None where it is not known."""
        return None if self.examples is None else count_steps(self.examples, self.pace.batch_size, self.pace.epochs)

    @property
    def queries(self) -> int:
        """Return the number of queries of a step that is not the last of an epoch: no more than there are examples."""
        size = self.pace.batch_size
        return size if self.examples is None else min(size, max(1, self.examples))

    @property
    def full_steps(self) -> float | None:
        """Return the number of steps, where the smaller last one of an epoch counts as a fraction."""
        return None if self.examples is None else self.pace.epochs * self.examples / self.queries

    @property
    def at_once(self) -> int:
        """Return the number of queries held in memory at once."""
        return min(self.pace.micro_batch or self.queries, self.queries)


def describe_stages(experiment: Experiment, supports: bool, examples: int | None = None) -> list[StageDescription]:
    """Return the stages of ``experiment`` that have work to do, in order.

    ``supports`` says whether the task has a test of support, without which there is no warm start. ``examples`` counts
    the training examples. Raises `UserError` where nothing is trained.
    """
    main = _training(experiment, examples)
    if not any(main.learns):
        raise UserError(_say_why_nothing_learns(main.objective))
    return _stages_with_work(experiment, main, supports)


def trains_retriever(experiment: Experiment) -> bool:
    """Return whether any stage trains the retriever, for a task that has a test of support."""
    stages = _stages_with_work(experiment, _training(experiment, None), supports=True)
    return any(stage.learns.retriever for stage in stages)


def trains_generator(experiment: Experiment) -> bool:
    """Return whether the main stage trains the generator."""
    return _training(experiment, None).learns.generator


def _stages_with_work(experiment: Experiment, main: StageDescription, supports: bool) -> list[StageDescription]:
    stages = [
        _warm_start(experiment, main) if supports else None,
        _masking(experiment, main),
        main if main.pace.epochs > 0 else None,
        _second_stage(experiment, main),
    ]
    return [stage for stage in stages if stage is not None]


def _say_why_nothing_learns(objective: Objective) -> str:
    if objective.trains_generator:
        return NOTHING_TRAINED
    return (
        f"nothing is trained: {type(objective).__name__} as set trains the retriever alone, and it rests; set "
        f'retriever.trained = "query" and training.retriever_learning_rate above 0'
    )


def _training(experiment: Experiment, examples: int | None) -> StageDescription:
    e, t = experiment, experiment.training
    pool = Pool(t.explorers) if t.pool else None
    pace = Pace(
        epochs=t.epochs,
        batch_size=t.batch_size,
        generator_learning_rate=t.generator_learning_rate,
        retriever_learning_rate=t.retriever_learning_rate,
        weight_decay=t.weight_decay,
        warmup=t.warmup,
        clip=t.clip,
        micro_batch=t.micro_batch,
        schedule=t.schedule,
        restarts=t.restarts,
        scale_learning_rate=t.scale_learning_rate * e.retriever.learns_scales,
    )
    return StageDescription(
        name="training",
        objective=e.objective,
        evidence=GeneratorEvidence(
            t.passages,
            t.tail,
            pool,
            t.distraction,
            t.prior_only,
            estimation=_estimation(e.objective, t),
            tail_posterior_share=t.tail_posterior_share,
        ),
        pace=pace,
        refresh=t.refresh_policy,
        targets=t.targets,
        examples=examples,
        moves_retriever=e.retriever.is_trained,
    )


def _warm_start(experiment: Experiment, main: StageDescription) -> StageDescription | None:
    """Describe the warm start of the retriever alone, with a linear schedule, where it learns at all."""
    w = experiment.warm_start
    if w.epochs == 0 or not (main.moves_retriever and main.objective.trains_retriever):
        return None
    objective = retriever_warm_start(main.objective)
    pace = Pace(
        epochs=w.epochs,
        batch_size=w.batch_size,
        generator_learning_rate=0.0,
        retriever_learning_rate=w.learning_rate,
        weight_decay=main.pace.weight_decay,
        warmup=main.pace.warmup,
        clip=main.pace.clip,
        scale_learning_rate=main.pace.scale_learning_rate,
    )
    return replace(
        main,
        name="warm start",
        objective=objective,
        evidence=CopyEvidence(w.noise, w.passages, _estimation(objective, experiment.training)),
        pace=pace,
        refresh=EverySteps(w.refresh_every),
    )


def _estimation(objective: Objective, t: TrainingSettings) -> NormaliserEstimation:
    """Return how log Z is estimated where the index does not know it: not at all for an objective that does without."""
    return t.estimation if objective.needs_log_normaliser else replace(t.estimation, draws=0)


def _masking(experiment: Experiment, main: StageDescription) -> StageDescription | None:
    """Describe the main stage on masked sentences, at rates of its own. Only the base can tell their number."""
    m = experiment.masking
    if m.epochs == 0:
        return None
    pace = replace(
        main.pace,
        epochs=m.epochs,
        generator_learning_rate=m.generator_learning_rate,
        retriever_learning_rate=m.retriever_learning_rate,
    )
    return replace(main, name="masking", pace=pace, targets="first", examples=None, is_masking=True)


def _second_stage(experiment: Experiment, main: StageDescription) -> StageDescription | None:
    """Describe the stage of the generator alone, on what it will read at test time."""
    s, t = experiment.second_stage, experiment.training
    if s.epochs == 0:
        return None
    together = s.reading == "together"
    # One prompt has no place for candidates that stand for others, nor for those that other queries retrieved.
    tail = 0 if together else t.tail
    pace = replace(
        main.pace,
        epochs=s.epochs,
        batch_size=s.batch_size or t.batch_size,
        generator_learning_rate=s.learning_rate,
        retriever_learning_rate=0.0,
        scale_learning_rate=0.0,
    )
    return replace(
        main,
        name="second stage",
        objective=generator_only(Reads.TOGETHER if together else Reads.SEPARATELY),
        evidence=GeneratorEvidence(s.passages or t.passages, tail, distraction=t.distraction, as_at_test_time=True),
        pace=pace,
        refresh=Never(),
    )
