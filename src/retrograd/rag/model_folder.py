"""A model on disk: each network a folder of safetensors, ``model.json`` for what none of them says, and its index.

The folder of a run keeps task and base beside the model; a folder that `RagModel.save_pretrained` wrote holds them too
(``task.json``, ``base.arrow``), so that it can be opened by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.generator import Generator
from retrograd.models.retriever import Retriever
from retrograd.models.settings import Scoring
from retrograd.objectives.differentiable_knn import Selection
from retrograd.rag.answers.answering import DEFAULT_ANSWERING, Answering
from retrograd.rag.answers.decision import Decision
from retrograd.rag.answers.manner import Manner
from retrograd.rag.model_card import write_cards
from retrograd.rag.model_parts import ModelParts
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.passage_side import PassageSide
from retrograd.rag.retriever_texts import describe_texts, find_limits, write_texts
from retrograd.rag.search_kinds import DENSE, SearchKind, search_kind
from retrograd.rag.settings import GeneratorSettings, RetrieverSettings, SoftPromptSettings
from retrograd.tasks.saved_tasks import read_task, write_task
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.files import atomic_directory
from retrograd.util.guards import JsonObject
from retrograd.util.records import read_value, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = [
    "BASE_FILE",
    "TASK_FILE",
    "SavedSettings",
    "create_model_folder",
    "open_passage_side",
    "open_saved_base",
    "open_saved_task",
    "read_parts",
    "read_saved_settings",
    "write_parts",
]

_FILE, TASK_FILE, BASE_FILE = "model.json", "task.json", "base.arrow"
_SETTINGS = "built_from"
_ADAPTERS = "adapter_config.json"


@dataclass(frozen=True)
class SavedSettings:
    """The content of ``model.json``. ``settings`` are those that the model was built from, where they are known."""

    has_posterior: bool = False
    own_passages: bool = False
    null_passage: bool = False
    search: SearchKind = DENSE
    answering: Answering = DEFAULT_ANSWERING
    settings: ModelSettings | None = None


def _is_model_folder(folder: Path) -> bool:
    """Return whether the folder holds a saved model."""
    return (folder / _FILE).exists()


def write_parts(parts: ModelParts, saved: SavedSettings, folder: Path, task: Task, base: KnowledgeBase) -> None:
    """Write ``retriever/``, ``generator/``, ``model.json`` and, if there is one, ``posterior/``, each with a card.

    The retriever's folder says how its ``task`` makes the texts that it reads.
    """
    texts = describe_texts(task)
    parts.retriever.save(folder / "retriever", texts.prefixes)
    limits = find_limits(texts, parts.retriever, saved.search)
    write_texts(folder / "retriever", task, texts, parts.retriever, limits)
    if parts.posterior is not None:  # its passage tower with it, also where that is the prior's
        parts.posterior.save(folder / "posterior")
    parts.generator.save(folder / "generator", saved.settings.generator.model if saved.settings else "")
    answering = saved.answering
    record: JsonObject = {
        "format": 2,
        "posterior": saved.has_posterior,
        "posterior_passages": "own" if saved.own_passages else "shared",
        "null_passage": saved.null_passage,
        "search": saved.search.name,
        "manner": record_mapping(answering.manner),
        "selection": None if answering.selection is None else record_mapping(answering.selection),
        "decision": record_mapping(answering.decision),
        "passages": answering.passages,
        "scoring": answering.scoring,
        "abstain_below": answering.abstain_below,
    }
    if saved.settings is not None:
        record[_SETTINGS] = _settings_record(saved.settings)
    write_json(folder / _FILE, record)
    write_cards(folder, parts, task, base, saved.search, saved.settings)


def read_saved_settings(folder: Path, defaults: Answering = DEFAULT_ANSWERING) -> SavedSettings:
    """Read ``model.json``; what its version did not write of answering yet is as in ``defaults``.

    Raises `UserError` for a folder without a model and for wrongly edited settings.
    """
    path = folder / _FILE
    if not path.exists():
        raise UserError(f"{folder} holds no model (no {_FILE}); give a checkpoint folder of a run")
    content = read_json(path)
    record = content if isinstance(content, dict) else {}
    answering = _read_answering(record, defaults, path)
    built_from = record.get(_SETTINGS)
    return SavedSettings(
        has_posterior=bool(record.get("posterior")),
        own_passages=record.get("posterior_passages") == "own",
        null_passage=bool(record.get("null_passage")),
        search=_read_search(record, path),
        answering=answering,
        settings=None if built_from is None else _read_model_settings(built_from, answering, f"{path}: {_SETTINGS}"),
    )


def read_parts(folder: Path, saved: SavedSettings, task: Task, generator_name: str = "") -> ModelParts:
    """Read the networks that `write_parts` wrote. ``generator_name`` is the model under adapters; without one it is
    that of the settings the model was built from, or the one that the adapters name."""
    retriever = Retriever.load(folder / "retriever", task.role_spans)
    posterior = None
    if saved.has_posterior:
        shared = None if saved.own_passages else retriever.passage_encoder
        posterior = Retriever.load(folder / "posterior", task.role_spans, shared)
    name = generator_name or (saved.settings.generator.model if saved.settings else _named_by_adapters(folder))
    return ModelParts(retriever, Generator.load(folder / "generator", name), posterior)


def open_passage_side(folder: Path, retriever: Retriever, task: Task) -> PassageSide:
    """Return what embeds the passages of a saved model whose ``retriever`` is open, without the rest of the model."""
    content = read_json(folder / _FILE)
    if not (isinstance(content, dict) and content.get("posterior_passages") == "own"):
        return PassageSide(retriever)
    return PassageSide(retriever, Retriever.load(folder / "posterior", task.role_spans))


def open_saved_task(folder: Path) -> Task:
    """Return the task that a saved model brings. Raises `UserError` where it brings none."""
    return read_task(_saved_file(folder, TASK_FILE, "task"))


def open_saved_base(folder: Path) -> KnowledgeBase:
    """Return the knowledge base that a saved model brings. Raises `UserError` where it brings none."""
    return KnowledgeBase.open(_saved_file(folder, BASE_FILE, "base"))


@contextmanager
def create_model_folder(folder: Path, task: Task, base: KnowledgeBase) -> Iterator[Path]:
    """Yield a temporary folder to write a model into, with its task and base; it then appears as ``folder``, complete.

    Raises `UserError` where ``folder`` holds something else than a saved model.
    """
    if folder.is_dir() and any(folder.iterdir()) and not _is_model_folder(folder):
        raise UserError(f"{folder} holds something else than a model; choose an empty or a new folder")
    with atomic_directory(folder) as temporary:
        write_task(task, temporary / TASK_FILE)
        base.save(temporary / BASE_FILE)
        yield temporary


def _saved_file(folder: Path, name: str, argument: str) -> Path:
    path = folder / name
    if path.exists():
        return path
    if not _is_model_folder(folder):
        raise UserError(
            f"{folder} holds no model; give a folder that save_pretrained wrote (rg.open_run opens the folder of a run)"
        )
    raise UserError(f"{folder} brings no {argument} (no {name}); give it: from_pretrained(…, {argument}=…)")


def _named_by_adapters(folder: Path) -> str:
    path = folder / "generator" / _ADAPTERS
    content = read_json(path) if path.exists() else {}
    name = content.get("base_model_name_or_path") if isinstance(content, dict) else None
    return name if isinstance(name, str) else ""


def _settings_record(settings: ModelSettings) -> JsonObject:
    return {
        "retriever": record_mapping(settings.retriever),
        "generator": record_mapping(settings.generator),
        "soft_prompt": record_mapping(settings.soft_prompt),
        "embeds_labels": settings.embeds_labels,
    }


def _read_model_settings(value: object, answering: Answering, where: str) -> ModelSettings:
    table = value if isinstance(value, dict) else {}
    return ModelSettings(
        cast(RetrieverSettings, read_value(RetrieverSettings, table.get("retriever"), f"{where}: retriever")),
        cast(GeneratorSettings, read_value(GeneratorSettings, table.get("generator"), f"{where}: generator")),
        cast(SoftPromptSettings, read_value(SoftPromptSettings, table.get("soft_prompt"), f"{where}: soft_prompt")),
        answering,
        cast(bool, read_value(bool, table.get("embeds_labels"), f"{where}: embeds_labels")),
    )


def _read_search(record: JsonObject, path: Path) -> SearchKind:
    try:
        return search_kind(cast(str, read_value(str, record.get("search"), "search")))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def _read_answering(record: JsonObject, defaults: Answering, path: Path) -> Answering:
    def read(hint: object, name: str, default: object = None) -> object:
        return read_value(hint, record.get(name, default), f"{path}: {name}")

    selection = record.get("selection")
    return replace(
        defaults,
        manner=cast(Manner, read(Manner, "manner")),
        selection=None if selection is None else cast(Selection, read(Selection, "selection")),
        decision=cast(Decision, read(Decision, "decision")),
        passages=cast(int, read(int, "passages", defaults.passages)),
        scoring=cast(Scoring, read(Scoring, "scoring", defaults.scoring)),
        abstain_below=cast("float | None", read(float | None, "abstain_below", defaults.abstain_below)),
    )
