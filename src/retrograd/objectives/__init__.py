"""Estimators of the gradient of -log p(y|x): one method, one file, one page of mathematics.

A new objective is a file and a line in `OBJECTIVES`; the contract tests run over that tuple.
"""

from retrograd.objectives.frozen import FrozenRetriever, NoRetrieval
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.objectives.marginal import TopKMarginal
from retrograd.objectives.objective import CandidateScores, Estimate, Likelihood, Objective, TokenLogLikelihood

__all__ = [
    "OBJECTIVES",
    "CandidateScores",
    "Estimate",
    "FrozenRetriever",
    "JointStochasticApproximation",
    "Likelihood",
    "NoRetrieval",
    "Objective",
    "TokenLogLikelihood",
    "TopKMarginal",
]

OBJECTIVES = (TopKMarginal, JointStochasticApproximation, FrozenRetriever, NoRetrieval)
"""Every objective there is; each can be made without arguments."""
