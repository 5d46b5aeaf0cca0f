"""A `RagModel` in the folder of a run, which keeps task and base beside it."""

from __future__ import annotations

from pathlib import Path

import torch

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import ComputePrecision
from retrograd.rag.answers.answering import DEFAULT_ANSWERING, Answering
from retrograd.rag.rag_model import RagModel
from retrograd.rag.saved_parts import passage_side_of
from retrograd.tasks.task import Task

__all__ = ["load_model", "passage_side_of", "save_model"]


def save_model(model: RagModel, folder: Path) -> None:
    """Write the parts of a model and its index, as `RagModel.save` does."""
    model.save(folder)


def load_model(
    folder: Path,
    task: Task,
    base: KnowledgeBase,
    generator_name: str,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    precision: ComputePrecision = "fp32",
    answering: Answering = DEFAULT_ANSWERING,
) -> RagModel:
    """Read what `save_model` wrote, as `RagModel.load` does."""
    return RagModel.load(folder, task, base, generator_name, device, precision, answering)
