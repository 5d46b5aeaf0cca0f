"""Recipes that run on a laptop without a network: SemEval-2010 Task 8 with the built-in models.

1,280 of the 8,000 training sentences are training data and knowledge base at once; the official 2,717 test sentences
are the test. One epoch, 80 steps of the generator, so that all of it takes minutes: far from converged, equal for all.
Rows differ in one or two settings, so that a difference in their scores has one reason.
"""

from __future__ import annotations

from dataclasses import replace

from retrograd.experiments.controls import closed_book, frozen_retriever
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.objectives import JointStochasticApproximation, TopKMarginal

__all__ = ["semeval_frozen", "semeval_joint", "semeval_jsa", "semeval_no_retrieval"]

_DATA = RelationData(train_count=1_280, neighbour_style="label only")


def semeval_joint() -> Experiment:
    """Retriever and generator trained as one: marginal likelihood over the best 5 passages (RAG, full normaliser)."""
    return Experiment(
        name="semeval-joint",
        data=_DATA,
        retriever=RetrieverSettings(dropout=False),
        generator=GeneratorSettings(dropout=False),
        objective=TopKMarginal(),
        warm_start=WarmStartSettings(epochs=2, refresh_every=20),
        training=TrainingSettings(epochs=1),
    )


def semeval_jsa() -> Experiment:
    """Joint training by JSA: a posterior retriever proposes passages, weights are exact over the candidates."""
    return replace(
        semeval_joint(),
        name="semeval-jsa",
        retriever=RetrieverSettings(posterior=True, dropout=False),
        objective=JointStochasticApproximation(),
    )


def semeval_frozen() -> Experiment:
    """Control: the retriever stays as it came, only the generator learns (RAG4RE's setting)."""
    return replace(frozen_retriever(semeval_joint()), name="semeval-frozen")


def semeval_no_retrieval() -> Experiment:
    """Control: the generator alone, without passages."""
    return replace(closed_book(semeval_joint()), name="semeval-no-retrieval")
