"""A folder that a model can be opened from by itself: where it may be written, and the task and base it brings."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.loading.lora import Lora
from retrograd.models.retriever import Trained
from retrograd.rag.answers.answering import Answering
from retrograd.rag.model_settings import GeneratorSettings, ModelSettings, RetrieverSettings
from retrograd.rag.saved_parts import is_model_folder
from retrograd.tasks.saved_tasks import read_task, write_task
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.files import atomic_directory

__all__ = ["model_place", "open_saved_base", "open_saved_task", "pretrained_settings"]

_TASK, _BASE = "task.json", "base.arrow"


def pretrained_settings(
    folder: str | Path | None,
    *,
    retriever: str,
    generator: str,
    posterior: bool,
    lora: Lora | None,
    temperature: float,
    trained: Trained,
    search: str,
    separate_towers: bool,
    null_passage: bool,
    passages: int,
    max_tokens: int,
    max_input_tokens: int,
    max_target_tokens: int,
) -> ModelSettings | None:
    """Return the settings of a new model; None where a ``folder`` brings them.

    Raises `UserError` unless there is either a folder, or both names.
    """
    if folder is not None:
        if retriever or generator or posterior or lora is not None:
            raise UserError(
                f"from_pretrained({str(folder)!r}) opens a saved model, which brings its retriever, posterior, "
                f"generator and adapters; leave out the folder, or these arguments"
            )
        return None
    if not retriever or not generator:
        missing = "retriever" if not retriever else "generator"
        raise UserError(
            f"from_pretrained needs {missing}=…, the name of a model or its folder; give retriever and generator, or "
            f"the folder of a saved model"
        )
    adapters = lora or Lora()
    return ModelSettings(
        RetrieverSettings(
            _from_root(retriever),
            max_tokens=max_tokens,
            temperature=temperature,
            trained=trained,
            separate_towers=separate_towers,
            posterior=posterior,
            null_passage=null_passage,
            search=search,
        ),
        replace(
            GeneratorSettings(_from_root(generator), max_input_tokens, max_target_tokens),
            lora_rank=adapters.rank,
            lora_alpha=adapters.alpha,
            lora_dropout=adapters.dropout,
            lora_modules=adapters.modules,
        ),
        answering=Answering(passages=passages),
    )


def open_saved_task(folder: Path) -> Task:
    """Return the task that a saved model brings. Raises `UserError` where it brings none."""
    return read_task(_saved_file(folder, _TASK, "task"))


def open_saved_base(folder: Path) -> KnowledgeBase:
    """Return the knowledge base that a saved model brings. Raises `UserError` where it brings none."""
    return KnowledgeBase.open(_saved_file(folder, _BASE, "base"))


@contextmanager
def model_place(folder: Path, task: Task, base: KnowledgeBase) -> Iterator[Path]:
    """A folder to write a model into, with its task and base; it then appears as ``folder``, complete.

    Raises `UserError` where ``folder`` holds something else than a saved model.
    """
    if folder.is_dir() and any(folder.iterdir()) and not is_model_folder(folder):
        raise UserError(f"{folder} holds something else than a model; choose an empty or a new folder")
    with atomic_directory(folder) as temporary:
        write_task(task, temporary / _TASK)
        base.save(temporary / _BASE)
        yield temporary


def _saved_file(folder: Path, name: str, argument: str) -> Path:
    path = folder / name
    if path.exists():
        return path
    if not is_model_folder(folder):
        raise UserError(
            f"{folder} holds no model; give a folder that save_pretrained wrote (rg.open_run opens the folder of a run)"
        )
    raise UserError(f"{folder} brings no {argument} (no {name}); give it: from_pretrained(…, {argument}=…)")


def _from_root(name: str) -> str:
    """Return the name of a model; of a folder from the root, so that it can be opened from any folder."""
    return str(Path(name).resolve()) if Path(name).is_dir() else name
