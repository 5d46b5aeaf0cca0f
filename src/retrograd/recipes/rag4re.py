"""RAG4RE: a retrieved training sentence in the prompt of a fine-tuned language model.

Efeoglu & Paschke 2024 (arXiv 2404.13397; fine-tuned: 2406.14745).
"""

from __future__ import annotations

from retrograd.objectives import TopKMarginal
from retrograd.recipes.experiment import (
    DataSettings,
    EvaluationSettings,
    Experiment,
    GeneratorSettings,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)

__all__ = ["semeval"]


def semeval() -> Experiment:
    """SemEval-2010 Task 8 at 10 %, RAG4RE's prompt on built-in models, retriever and generator trained as one.

    ``retriever.trained = "none"`` is the frozen retriever under the same prompt.
    """
    return Experiment(
        name="rag4re-semeval",
        data=DataSettings(train_count=800, dev_from_train=400, seed=0, input_style="instructed"),
        retriever=RetrieverSettings(pooling="roles", dropout=False),
        generator=GeneratorSettings(dropout=False, max_input_tokens=320),
        objective=TopKMarginal(),
        warm_start=WarmStartSettings(epochs=3, learning_rate=2e-4, refresh_every=10),
        training=TrainingSettings(epochs=3, passages=3, distraction=0.3, refresh_every=50),
        evaluation=EvaluationSettings(),
    )
