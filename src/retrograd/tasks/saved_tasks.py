"""Tasks as plain records, so that a saved model can bring its task with it. A new task is a line in `SAVED_TASKS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.record import read_relation_extraction, relation_extraction_record
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, suggest_name
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["SAVED_TASKS", "describe_queries", "read_task", "task_record", "write_task"]

T = TypeVar("T")


@dataclass(frozen=True)
class SavedTask(Generic[T]):
    """One class of tasks: how a task of exactly this class becomes a record of its settings, and comes back from it.

    ``read`` raises `UserError`, beginning with its second argument, for anything that ``write`` does not return.
    ``queries`` says what the text of a query is made of, for whoever feeds a retriever without the task.
    """

    task: type[T]
    write: Callable[[T], JsonObject]
    read: Callable[[Mapping[str, object], str], T]
    queries: str

    def settings(self, task: Task) -> JsonObject | None:
        """Return the settings of a task of this class; None for a task of another class, a subclass included."""
        return self.write(task) if isinstance(task, self.task) and type(task) is self.task else None


def _plain(task: type[T], queries: str) -> SavedTask[T]:
    """Return how tasks are saved whose fields are plain values."""
    return SavedTask(task, record_mapping, partial(read_record, task), queries)


SAVED_TASKS: dict[str, SavedTask[QuestionAnswering] | SavedTask[GroundedDialogue] | SavedTask[RelationExtraction]] = {
    "questions": _plain(QuestionAnswering, "the question"),
    "dialogue": _plain(
        GroundedDialogue,
        "the texts of the last turns, as many as the task's setting turns says, the last turn first, joined by a space",
    ),
    "relations": SavedTask(
        RelationExtraction,
        relation_extraction_record,
        read_relation_extraction,
        "the sentence with the head marked @ head @ and the tail # tail #, in the style of the task's query_style",
    ),
}
"""Every class of tasks that a folder can bring, by its name there."""

_CUSTOM = "custom"


def task_record(task: Task) -> tuple[str, JsonObject]:
    """Return the kind of a task and its settings; "custom" and its class for one that is not in `SAVED_TASKS`."""
    for kind, saved in SAVED_TASKS.items():
        settings = saved.settings(task)
        if settings is not None:
            return kind, settings
    return _CUSTOM, {"class": type(task).__qualname__, "name": task.name}


def describe_queries(task: Task) -> str:
    """Return in words what the text of a query is made of."""
    kind, _ = task_record(task)
    return SAVED_TASKS[kind].queries if kind in SAVED_TASKS else f"what {type(task).__qualname__}.query_text returns"


def write_task(task: Task, path: Path) -> None:
    """Write the record of a task; of a class that is not in `SAVED_TASKS` its name alone."""
    kind, settings = task_record(task)
    write_json(path, {"kind": kind, "settings": settings})


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
