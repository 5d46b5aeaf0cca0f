"""Where the task, the knowledge base and the examples of an experiment come from: what every kind of data can do."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from retrograd.corpus.knowledge_base import KnowledgeBase
from retrograd.io import JsonObject
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.tasks.task import Task
from retrograd.types import Example, UserError

__all__ = ["Data", "Source", "in_full", "relation_extraction"]


@dataclass(frozen=True)
class Data:
    """A task, its knowledge base, its examples, and what was drawn: seed, counts by part, hashes of ids."""

    task: Task
    base: KnowledgeBase
    train: list[Example]
    dev: list[Example]
    test: list[Example]
    drawn: JsonObject


@runtime_checkable
class Source(Protocol):
    """The settings of a kind of data, a frozen record. ``train``, ``dev`` and ``test`` name files; "" is none."""

    @property
    def train(self) -> str: ...

    @property
    def dev(self) -> str: ...

    @property
    def test(self) -> str: ...

    @property
    def has_dev(self) -> bool:
        """Whether there will be development data."""
        ...

    def load(self, seed: int, task: Task | None = None) -> Data:
        """Read and draw; ``seed`` is the experiment's. ``task`` is that of a finished run; without one it is made.

        Raises `UserError` with file and line for what is wrong in the files, and for draws that ask for too much.
        """
        ...

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """All examples of another file, with or without targets; ``base`` is the run's. Raises `UserError` as `load`
        does."""
        ...

    def asked(self, text: str, task: Task) -> Example:
        """What somebody types in, as an example without a target. Raises `UserError` for what is no query."""
        ...

    def task_record(self, task: Task) -> JsonObject:
        """What of the task these settings do not hold."""
        ...

    def task_from_record(self, record: object, where: str) -> Task:
        """The task that `task_record` wrote. Raises `UserError`, beginning with ``where``, for anything else."""
        ...

    def from_root(self) -> Source:
        """The same with files named from the root, so that a run can be opened from any folder."""
        ...


def in_full(name: str) -> str:
    """A file's name from the root; "" and what is built in stay as they are."""
    return name if name == "" or name.startswith("builtin:") else str(Path(name).resolve())


def relation_extraction(task: Task, command: str) -> RelationExtraction:
    """The task as the one kind that ``command`` knows. Raises `UserError` for any other."""
    if not isinstance(task, RelationExtraction):
        raise UserError(
            f"{command} is about relations between entities, and the task of this run is {task.name}; "
            f"evaluate, predict, search, compare and lab know every task"
        )
    return task
