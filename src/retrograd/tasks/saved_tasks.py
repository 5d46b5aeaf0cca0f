"""Tasks as plain records, so that a saved model can bring its task with it. A new task is a line in `SAVED_TASKS`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.record import read_relation_extraction, relation_extraction_record
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, suggest_name
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["SAVED_TASKS", "read_task", "write_task"]


class SavedTask(Protocol):
    """The way in which tasks of one class are written to a record and read from it."""

    def record(self, task: Task) -> JsonObject | None:
        """Return the settings of a task of this class; None for a task of another class."""
        ...

    def read(self, settings: Mapping[str, object], where: str) -> Task:
        """Return the task of a record. Raises `UserError`, beginning with ``where``, for anything else."""
        ...


class _Questions:
    def record(self, task: Task) -> JsonObject | None:
        return record_mapping(task) if type(task) is QuestionAnswering else None

    def read(self, settings: Mapping[str, object], where: str) -> Task:
        return read_record(QuestionAnswering, settings, where)


class _Dialogue:
    def record(self, task: Task) -> JsonObject | None:
        return record_mapping(task) if type(task) is GroundedDialogue else None

    def read(self, settings: Mapping[str, object], where: str) -> Task:
        return read_record(GroundedDialogue, settings, where)


class _Relations:
    def record(self, task: Task) -> JsonObject | None:
        return relation_extraction_record(task) if type(task) is RelationExtraction else None

    def read(self, settings: Mapping[str, object], where: str) -> Task:
        return read_relation_extraction(settings, where)


SAVED_TASKS: dict[str, SavedTask] = {"questions": _Questions(), "dialogue": _Dialogue(), "relations": _Relations()}
"""Every class of tasks that a folder can bring, by its name there."""

_CUSTOM = "custom"


def write_task(task: Task, path: Path) -> None:
    """Write the record of a task; of a class that is not in `SAVED_TASKS` its name alone."""
    for kind, saved in SAVED_TASKS.items():
        settings = saved.record(task)
        if settings is not None:
            write_json(path, {"kind": kind, "settings": settings})
            return
    write_json(path, {"kind": _CUSTOM, "settings": {"class": type(task).__qualname__, "name": task.name}})


def read_task(path: Path) -> Task:
    """Return the task that `write_task` wrote.

    Raises `UserError` for a task of a class of your own, which no file can bring, and for a damaged file.
    """
    content = read_json(path)
    kind = content.get("kind") if isinstance(content, dict) else None
    settings = content.get("settings") if isinstance(content, dict) else None
    if not isinstance(kind, str) or not isinstance(settings, dict):
        raise UserError(f"{path}: expected a table with kind and settings; save the model again")
    if kind == _CUSTOM:
        raise UserError(
            f"{path}: the task is an object of your class {settings.get('class')}, which is not written to files; give "
            f"it: from_pretrained({str(path.parent)!r}, task=…)"
        )
    if kind not in SAVED_TASKS:
        raise UserError(f"{path}: unknown kind of task {kind!r}; {suggest_name(kind, SAVED_TASKS)}")
    return SAVED_TASKS[kind].read(settings, f"{path}: settings")
