"""A `RagModel` on disk: its parts as folders of safetensors, and ``model.json`` for what no part says."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import torch

from retrograd.index.exact import ExactIndex
from retrograd.index.index import can_save_with_model
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import ComputePrecision
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.objectives.differentiable_knn import Selection
from retrograd.rag.answers.answering import Answering, Manner
from retrograd.rag.answers.decision import Decision
from retrograd.rag.passage_side import PassageSide
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import SearchKind, search_kind
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.records import read_value, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["load_model", "passage_side_of", "save_model"]

_FILE = "model.json"


def save_model(model: RagModel, folder: Path) -> None:
    """Write ``retriever/``, ``generator/``, ``index/`` and, if there is one, ``posterior/``."""
    model.retriever.save(folder / "retriever")
    if model.posterior is not None:  # its passage tower with it, also where that is the prior's
        model.posterior.save(folder / "posterior")
    model.generator.save(folder / "generator")
    # In the middle of a stage the index is older than the tower, or mixed; a reader then embeds the base anew.
    if model.has_index and can_save_with_model(model.index) and model.index_is_current():
        model.index.save(folder / "index")
    answering = model.answering
    write_json(
        folder / _FILE,
        {
            "format": 2,
            "posterior": model.posterior is not None,
            "posterior_passages": "shared" if model.passage_side.own is None else "own",
            "null_passage": model.null_passage,
            "search": model.search_kind.name,
            "manner": record_mapping(answering.manner),
            "selection": None if answering.selection is None else record_mapping(answering.selection),
            "decision": record_mapping(answering.decision),
        },
    )


def load_model(
    folder: Path,
    task: Task,
    base: KnowledgeBase,
    generator_name: str,
    rng: torch.Generator,
    device: torch.device | str = "cpu",
    precision: ComputePrecision = "fp32",
) -> RagModel:
    """Read what `save_model` wrote; models and index go to ``device``. It computes in ``precision``;
    ``generator_name`` is the model under adapters.

    The index stays there when the model is moved. Raises `UserError` for a folder without a model, and for an index of
    another base or encoder.
    """
    path = folder / _FILE
    if not path.exists():
        raise UserError(f"{folder} holds no model (no {_FILE}); give a checkpoint folder of a run")
    found = read_json(path)
    settings = found if isinstance(found, dict) else {}
    retriever = Retriever.load(folder / "retriever", task.role_spans)
    posterior = None
    if settings.get("posterior"):
        shared = None if _own_passages(settings) else retriever.passage_encoder
        posterior = Retriever.load(folder / "posterior", task.role_spans, shared)
    generator = Generator.load(folder / "generator", generator_name)
    model = RagModel(
        retriever,
        generator,
        task,
        base,
        posterior,
        bool(settings.get("null_passage")),
        search=_read_search(settings, path),
        answering=_read_answering(settings, path),
        precision=precision,
    ).to(device)
    if (folder / "index").exists():
        model.use_index(
            ExactIndex.load(
                folder / "index",
                base_fingerprint=base.fingerprint,
                encoder_fingerprint=model.passage_fingerprint(),
                device=device,
            )
        )
    return model


def passage_side_of(folder: Path, retriever: Retriever, task: Task) -> PassageSide:
    """What embeds the passages of a saved model whose ``retriever`` is open, without the rest of it."""
    found = read_json(folder / _FILE)
    if not (isinstance(found, dict) and _own_passages(found)):
        return PassageSide(retriever)
    return PassageSide(retriever, Retriever.load(folder / "posterior", task.role_spans))


def _read_search(settings: JsonObject, path: Path) -> SearchKind:
    try:
        return search_kind(cast(str, read_value(str, settings.get("search"), "search")))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_answering(settings: JsonObject, path: Path) -> Answering:
    manner = cast(Manner, read_value(Manner, settings.get("manner"), f"{path}: manner"))
    decision = cast(Decision, read_value(Decision, settings.get("decision"), f"{path}: decision"))
    selection = settings.get("selection")
    if selection is not None:
        selection = cast(Selection, read_value(Selection, selection, f"{path}: selection"))
    return Answering(manner, selection, decision)


def _own_passages(settings: JsonObject) -> bool:
    return settings.get("posterior_passages") == "own"
