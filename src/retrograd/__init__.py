"""Gradients through retrieval: the retriever and the generator of a RAG model, trained as one model.

The names below are the public API; what they come from is imported when a name is first used. Names that are not
listed here may change from one version to the next.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrograd.data.documents.windows import Windows
    from retrograd.data.readers import read_dialogues, read_passages, read_questions, read_relations
    from retrograd.experiments.experiment import Experiment
    from retrograd.experiments.from_python import Run, open_run, resume, train
    from retrograd.experiments.training_config import TrainingConfig
    from retrograd.index.knowledge_base import KnowledgeBase
    from retrograd.index.settings import IndexSettings
    from retrograd.models.encoder import Encoder
    from retrograd.models.generator import Generator
    from retrograd.models.loading.lora import Lora
    from retrograd.models.retriever import Retriever
    from retrograd.objectives import (
        Distillation,
        FrozenRetriever,
        JointStochasticApproximation,
        NoRetrieval,
        RelaxedTopK,
        ScoreFunction,
        StochasticTopK,
        TopKMarginal,
        Variational,
        Vimco,
        WakeSleep,
    )
    from retrograd.rag.rag_model import RagModel
    from retrograd.recipes import recipe
    from retrograd.studies.export.export import export
    from retrograd.studies.extraction.extract import extract
    from retrograd.studies.extraction.sources import Pairing
    from retrograd.studies.from_python import compare, measure, run
    from retrograd.tasks.dialogue import GroundedDialogue
    from retrograd.tasks.question_answering import QuestionAnswering
    from retrograd.tasks.relations.extraction import RelationExtraction
    from retrograd.training.tracking.settings import TrackSettings
    from retrograd.types import Example, Hit, Passage, Prediction, UserError
    from retrograd.util.progress import show_progress

    __version__: str

__all__ = [
    "Distillation",
    "Encoder",
    "Example",
    "Experiment",
    "FrozenRetriever",
    "Generator",
    "GroundedDialogue",
    "Hit",
    "IndexSettings",
    "JointStochasticApproximation",
    "KnowledgeBase",
    "Lora",
    "NoRetrieval",
    "Pairing",
    "Passage",
    "Prediction",
    "QuestionAnswering",
    "RagModel",
    "RelationExtraction",
    "RelaxedTopK",
    "Retriever",
    "Run",
    "ScoreFunction",
    "StochasticTopK",
    "TopKMarginal",
    "TrackSettings",
    "TrainingConfig",
    "UserError",
    "Variational",
    "Vimco",
    "WakeSleep",
    "Windows",
    "__version__",
    "compare",
    "export",
    "extract",
    "measure",
    "open_run",
    "read_dialogues",
    "read_passages",
    "read_questions",
    "read_relations",
    "recipe",
    "resume",
    "run",
    "show_progress",
    "train",
]

_MODULES = {
    "retrograd.data.documents.windows": ("Windows",),
    "retrograd.data.readers": ("read_dialogues", "read_passages", "read_questions", "read_relations"),
    "retrograd.experiments.experiment": ("Experiment",),
    "retrograd.experiments.from_python": ("Run", "open_run", "resume", "train"),
    "retrograd.experiments.training_config": ("TrainingConfig",),
    "retrograd.index.knowledge_base": ("KnowledgeBase",),
    "retrograd.index.settings": ("IndexSettings",),
    "retrograd.models.encoder": ("Encoder",),
    "retrograd.models.generator": ("Generator",),
    "retrograd.models.loading.lora": ("Lora",),
    "retrograd.models.retriever": ("Retriever",),
    "retrograd.objectives": (
        "Distillation",
        "FrozenRetriever",
        "JointStochasticApproximation",
        "NoRetrieval",
        "RelaxedTopK",
        "ScoreFunction",
        "StochasticTopK",
        "TopKMarginal",
        "Variational",
        "Vimco",
        "WakeSleep",
    ),
    "retrograd.rag.rag_model": ("RagModel",),
    "retrograd.recipes": ("recipe",),
    "retrograd.studies.export.export": ("export",),
    "retrograd.studies.extraction.extract": ("extract",),
    "retrograd.studies.extraction.sources": ("Pairing",),
    "retrograd.studies.from_python": ("compare", "measure", "run"),
    "retrograd.tasks.dialogue": ("GroundedDialogue",),
    "retrograd.tasks.question_answering": ("QuestionAnswering",),
    "retrograd.tasks.relations.extraction": ("RelationExtraction",),
    "retrograd.training.tracking.settings": ("TrackSettings",),
    "retrograd.types": ("Example", "Hit", "Passage", "Prediction", "UserError"),
    "retrograd.util.progress": ("show_progress",),
}
"""Where each public name is defined."""

_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Import a public name when it is first used (PEP 562)."""
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("retrograd")
    elif name in _MODULE_OF:
        value = getattr(import_module(_MODULE_OF[name]), name)
    else:
        raise AttributeError(f"module 'retrograd' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, for completion."""
    return __all__
