"""The objectives that a run takes by role, where the experiment does not name one: stages and controls.

Other modules get the objective of a role here, so that none of them names a class.
"""

from __future__ import annotations

from retrograd.objectives.differentiable_knn import RelaxedTopK
from retrograd.objectives.distillation import Distillation
from retrograd.objectives.frozen import FrozenRetriever, NoRetrieval
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.objectives.marginal import TopKMarginal
from retrograd.objectives.objective import Objective, Reads

__all__ = [
    "closed_book",
    "default_objective",
    "generator_only",
    "generator_part",
    "remark_on_cost",
    "retriever_warm_start",
]

_MANY_DRAWS = 10


def default_objective() -> Objective:
    """Return the objective of an experiment that names none: the likelihood marginalised over the candidates."""
    return TopKMarginal()


def closed_book() -> Objective:
    """Return the objective that trains the generator without passages."""
    return NoRetrieval()


def generator_only(reads: Reads) -> Objective:
    """Return the objective that trains the generator alone: on passages read together, or else separately."""
    return FrozenRetriever("together" if reads == Reads.TOGETHER else "marginal")


def generator_part(objective: Objective) -> Objective:
    """Return what ``objective`` teaches the generator, as an objective that needs no posterior.

    An objective without a part of its own for the generator is returned as it is: under a retriever that is not
    trained, only the generator learns from it.
    """
    match objective:
        case FrozenRetriever() | RelaxedTopK() | TopKMarginal(form="token"):
            return objective
        case Distillation():
            return generator_only(objective.reads)
        case TopKMarginal():
            return generator_only(Reads.SEPARATELY)
        case _:
            return generator_only(Reads.SEPARATELY) if objective.needs_posterior else objective


def retriever_warm_start(objective: Objective) -> Objective:
    """Return the objective that warms up the retriever of an experiment with ``objective``.

    That is ``objective`` itself unless it answers from soft slots. These would leave all but the best candidates
    without a gradient, and copying has no prompt to mix them in.
    """
    return objective if objective.selection is None else TopKMarginal()


def remark_on_cost(objective: Objective) -> str | None:
    """Return a remark on settings that make an objective cost more than it needs, or None.

    The number of draws stays what it is: 2 visits of a carried chain have several times the variance of 50.
    """
    match objective:
        case JointStochasticApproximation(sampler="metropolis", chain="carried", draws=draws) if draws > _MANY_DRAWS:
            return (
                f'objective.draws is {draws} beside objective.chain = "carried": a chain that goes on from visit to '
                f"visit is nearly unbiased with 2, which read fewer prompts a step, at more variance; set "
                f"objective.draws = 2 where steps are many"
            )
        case _:
            return None
