"""Estimators of the gradient of -log p(y|x): one method, one file, one page of mathematics.

A new objective is a file and a line in `OBJECTIVES`; the contract tests run over that tuple.
"""

from retrograd.objectives.defaults import (
    closed_book,
    default_objective,
    generator_only,
    generator_part,
    remark_on_cost,
    retriever_warm_start,
)
from retrograd.objectives.differentiable_knn import RelaxedTopK, Selection
from retrograd.objectives.distillation import Distillation
from retrograd.objectives.frozen import FrozenRetriever, NoRetrieval
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.objectives.marginal import TopKMarginal
from retrograd.objectives.objective import (
    CandidateScores,
    Estimate,
    Goal,
    Likelihood,
    Objective,
    Reads,
    TokenLogLikelihood,
)
from retrograd.objectives.score_function import ScoreFunction, Vimco
from retrograd.objectives.stochastic_top_k import StochasticTopK
from retrograd.objectives.variational import Variational
from retrograd.objectives.wake_sleep import WakeSleep

__all__ = [
    "OBJECTIVES",
    "CandidateScores",
    "Distillation",
    "Estimate",
    "FrozenRetriever",
    "Goal",
    "JointStochasticApproximation",
    "Likelihood",
    "NoRetrieval",
    "Objective",
    "Reads",
    "RelaxedTopK",
    "ScoreFunction",
    "Selection",
    "StochasticTopK",
    "TokenLogLikelihood",
    "TopKMarginal",
    "Variational",
    "Vimco",
    "WakeSleep",
    "closed_book",
    "default_objective",
    "generator_only",
    "generator_part",
    "remark_on_cost",
    "retriever_warm_start",
]

OBJECTIVES = (
    TopKMarginal,
    JointStochasticApproximation,
    Variational,
    WakeSleep,
    StochasticTopK,
    RelaxedTopK,
    ScoreFunction,
    Vimco,
    Distillation,
    FrozenRetriever,
    NoRetrieval,
)
"""Every objective there is; each can be made without arguments."""
