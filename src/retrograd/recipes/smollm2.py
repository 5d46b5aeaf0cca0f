"""Recipes that train a language model on a laptop: SmolLM2-135M-Instruct under LoRA, with the retriever or without.

Each trains on three hundred examples, once. The rows of a task differ in their retrieval alone: trained as one with the
generator, frozen, or none; data, generator, steps and learning rates are the same. Retrieval is dense and has no warm
start, so what the retriever learns it learns from the generator. The model is that of `retrograd.models.loading.gguf`;
an error names the command that installs its package. Queries are read one by one (``training.micro_batch``), because
all passages of a query stay in memory until the gradient is taken.
"""

from __future__ import annotations

from dataclasses import replace

from retrograd.experiments.controls import closed_book, frozen_retriever
from retrograd.experiments.experiment import (
    EvaluationSettings,
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.objectives import JointStochasticApproximation, TopKMarginal
from retrograd.recipes.jsa_rag import dialogue_data, question_data

__all__ = ["ROWS"]

_GENERATOR = GeneratorSettings(model="builtin:smollm2", max_input_tokens=384, lora_rank=8, dropout=False)
_TRAINING = TrainingSettings(epochs=1, batch_size=8, micro_batch=1, passages=2, generator_learning_rate=5e-4)
_NO_WARM_START = WarmStartSettings(epochs=0)


def questions_joint() -> Experiment:
    """Questions over your passages with SmolLM2 (LoRA): retriever and generator trained as one by JSA, exact weights.

    Each question is read with the best 2 passages of the prior and of the posterior, at most 4 in all.
    """
    return Experiment(
        name="smollm2-questions-joint",
        data=replace(question_data("squad_dev_qa"), dev="", train_count=300, test_count=200, seed=0),
        retriever=RetrieverSettings(max_tokens=256, separate_towers=True, posterior=True, dropout=False),
        generator=_GENERATOR,
        objective=JointStochasticApproximation(),
        warm_start=_NO_WARM_START,
        training=replace(_TRAINING, retriever_learning_rate=3e-5),
    )


def questions_frozen() -> Experiment:
    """Control: SmolLM2 (LoRA) learns to answer from what the untrained retriever finds."""
    return replace(frozen_retriever(questions_joint()), name="smollm2-questions-frozen")


def questions_no_retrieval() -> Experiment:
    """Control: SmolLM2 (LoRA) learns to answer questions without passages."""
    return replace(closed_book(questions_joint()), name="smollm2-questions-no-retrieval")


def dialogue_joint() -> Experiment:
    """Dialogue grounded in your passages with SmolLM2 (LoRA): trained as one by JSA, as the questions are."""
    questions = questions_joint()
    return replace(
        questions,
        name="smollm2-dialogue-joint",
        data=replace(dialogue_data("doc2dial"), dev="", train_count=300, test_count=200, seed=0),
        generator=replace(_GENERATOR, max_input_tokens=448, max_target_tokens=48),
    )


def dialogue_frozen() -> Experiment:
    """Control: SmolLM2 (LoRA) learns the next turn from what the untrained retriever finds."""
    return replace(frozen_retriever(dialogue_joint()), name="smollm2-dialogue-frozen")


def dialogue_no_retrieval() -> Experiment:
    """Control: SmolLM2 (LoRA) learns the next turn without passages."""
    return replace(closed_book(dialogue_joint()), name="smollm2-dialogue-no-retrieval")


def semeval_joint() -> Experiment:
    """SemEval-2010 Task 8 in RAG4RE's prompt with SmolLM2 (LoRA): trained as one on three labelled neighbours.

    The list of relations, half of the prompt, is left out: the answer is chosen among them.
    """
    return Experiment(
        name="smollm2-semeval-joint",
        data=RelationData(train_count=300, test_count=400, seed=0, input_style="instructed, no list"),
        retriever=RetrieverSettings(pooling="roles", dropout=False),
        generator=_GENERATOR,
        objective=TopKMarginal(),
        warm_start=_NO_WARM_START,
        training=replace(_TRAINING, passages=3, distraction=0.3),
        evaluation=EvaluationSettings(scoring="tree"),
    )


def semeval_frozen() -> Experiment:
    """Control: SmolLM2 (LoRA) learns the relations from what the untrained retriever finds."""
    return replace(frozen_retriever(semeval_joint()), name="smollm2-semeval-frozen")


def semeval_no_retrieval() -> Experiment:
    """Control: SmolLM2 (LoRA) learns the relations without neighbours."""
    return replace(closed_book(semeval_joint()), name="smollm2-semeval-no-retrieval")


ROWS = (
    questions_joint,
    questions_frozen,
    questions_no_retrieval,
    dialogue_joint,
    dialogue_frozen,
    dialogue_no_retrieval,
    semeval_joint,
    semeval_frozen,
    semeval_no_retrieval,
)
"""All recipes here, task by task."""
