"""The controls of an experiment are what joint training must beat to have helped; each is a function of it.

A control differs in as few settings as possible; data, generator, batch, epochs and learning rates are the experiment's
own, so that the generator makes the same number of steps on the same examples. A second stage with a batch or a rate of
its own is the exception: the closed book makes its epochs as the first stage does.

=================  ===================================================================================================
closed book        the generator alone, without passages; a second stage becomes as many more epochs of the first
random neighbours  what an untrained retriever finds for a passage that has nothing to do with the query
frozen retriever   the retriever stays as it came, only the generator learns
oracle             passages that support the target, at test time too: a reference that knows the answer
=================  ===================================================================================================

The last three are read as the experiment reads its passages: one by one, in one prompt, or in soft slots.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from retrograd import objectives
from retrograd.experiments.experiment import Experiment
from retrograd.rag.search_kinds import DENSE, UNRELATED, SearchKind
from retrograd.rag.search_kinds import ORACLE as SUPPORTING

__all__ = [
    "CLOSED_BOOK",
    "CONTROLS",
    "FROZEN",
    "ORACLE",
    "RANDOM",
    "Control",
    "closed_book",
    "frozen_retriever",
    "oracle",
    "random_neighbours",
]

Control = Callable[[Experiment], Experiment]

CLOSED_BOOK, RANDOM, FROZEN, ORACLE = "closed book", "random neighbours", "frozen retriever", "oracle"


def closed_book(experiment: Experiment) -> Experiment:
    """Return the control that trains the generator without passages, for as many epochs."""
    e, second = experiment, experiment.second_stage
    return replace(
        e,
        retriever=replace(e.retriever, trained="none", posterior=False),
        generator=replace(e.generator, fusion=False),
        soft_prompt=replace(e.soft_prompt, form="words"),
        objective=objectives.closed_book(),
        training=replace(
            e.training, passages=0, epochs=e.training.epochs + second.epochs, distraction=0.0, prior_only=0.0
        ),
        second_stage=replace(second, epochs=0),
        evaluation=replace(e.evaluation, passages=min(e.evaluation.passages, 0)),
    )


def random_neighbours(experiment: Experiment) -> Experiment:
    """Return the control that trains the generator with passages that an untrained retriever finds for others."""
    return _untrained(experiment, UNRELATED)


def frozen_retriever(experiment: Experiment) -> Experiment:
    """Return the control that trains the generator with passages that the untrained retriever finds."""
    search = experiment.retriever.search_kind
    return _untrained(experiment, DENSE if search.is_control else search)


def oracle(experiment: Experiment) -> Experiment:
    """Return the control with passages that support the target; instead of a pool each query has as many of its own."""
    t = experiment.training
    pool = (t.micro_batch or t.batch_size) * t.passages + t.explorers
    training = replace(
        t, pool=False, explorers=0, tail=0, distraction=0.0, passages=pool if t.pool else t.passages, prior_only=0.0
    )
    k = experiment.test_passages if t.pool else experiment.evaluation.passages
    evaluation = replace(experiment.evaluation, passages=k)
    return _untrained(replace(experiment, training=training, evaluation=evaluation), SUPPORTING)


CONTROLS: Mapping[str, Control] = {
    CLOSED_BOOK: closed_book,
    RANDOM: random_neighbours,
    FROZEN: frozen_retriever,
    ORACLE: oracle,
}
"""By name, in the order in which they run."""


def _untrained(experiment: Experiment, search: SearchKind) -> Experiment:
    """Keep the retriever untrained; the generator learns by its part of the objective."""
    e, objective = experiment, objectives.generator_part(experiment.objective)
    # In one prompt, at the end of training; objectives that read one by one have nothing to fuse.
    together = e.second_stage.epochs > 0 and e.second_stage.reading == "together"
    fusion = e.generator.fusion and (together or objective.reads == objectives.Reads.TOGETHER)
    return replace(
        e,
        retriever=replace(e.retriever, trained="none", posterior=False, search=search.name),
        generator=replace(e.generator, fusion=fusion),
        objective=objective,
        training=replace(e.training, prior_only=0.0),
    )
