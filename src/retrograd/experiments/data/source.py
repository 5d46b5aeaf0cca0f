"""A kind of data gives an experiment its task and examples: the one place where kinds of data differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from retrograd.data.hub import HUB_PREFIX
from retrograd.data.relations.instance import RelationInstance
from retrograd.experiments.data.example_files import ExampleSource
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.part_reading import BaseFile, DataParts
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.task import Task
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse

__all__ = ["Data", "DataKind", "absolute_file", "relation_extraction"]


@dataclass(frozen=True)
class Data:
    """Task, knowledge base and examples of an experiment, and what was drawn: seed, counts by part, hashes of ids."""

    task: Task
    base: KnowledgeBase
    train: list[Example]
    dev: list[Example]
    test: list[Example]
    draw_record: JsonObject


@runtime_checkable
class DataKind(Protocol):
    """The settings of one kind of data, a frozen record, and all that depends on the kind.

    ``train``, ``dev``, ``test`` and ``more`` name files; "" is none. Nothing outside asks which kind a value has: where
    kinds differ, this protocol has a member. A new kind is one file and one line in
    `retrograd.experiments.data.kinds.KINDS`.
    """

    kind: ClassVar[str]
    """The value of ``data.kind`` that chooses it."""

    has_closed_answers: ClassVar[bool]
    """Whether the task permits a closed set of answers, among which a decision can be fitted."""

    train_is_base: ClassVar[bool]
    """Whether the training examples are the knowledge base."""

    @property
    def train(self) -> str: ...

    @property
    def dev(self) -> str: ...

    @property
    def test(self) -> str: ...

    @property
    def more(self) -> str:
        """Return the file of verdicts to learn from; "" where there is none."""
        ...

    @property
    def train_count(self) -> int:
        """Return how many training examples are drawn; 0 is all."""
        ...

    @property
    def base_source(self) -> str:
        """Return the file of the knowledge base; "" where there is none."""
        ...

    @property
    def has_dev(self) -> bool:
        """Return whether there will be development data."""
        ...

    @property
    def embeds_labels(self) -> bool:
        """Return whether the passage tower reads labels, so that a soft prompt adds none to a passage's embedding."""
        ...

    def load(self, seed: int, task: Task | None = None) -> Data:
        """Read and draw; ``seed`` is the experiment's. ``task`` is that of a finished run; without one it is made.

        Raises `UserError` with file and line for what is wrong in the files, and for draws that ask for too much.
        """
        ...

    def read(self, path: Path, patch: Path | None, task: Task, base: KnowledgeBase) -> list[Example]:
        """Read all examples of another file, with or without targets; ``base`` is the run's. Raises `UserError` as
        `load` does."""
        ...

    def task_record(self, task: Task) -> JsonObject:
        """Return the part of the task that these settings do not hold."""
        ...

    def task_from_record(self, record: object, where: str) -> Task:
        """Return the task that `task_record` wrote. Raises `UserError`, beginning with ``where``, for anything else."""
        ...

    def from_root(self) -> DataKind:
        """Return the settings with absolute names of files, so that a run can be opened from any folder."""
        ...

    @classmethod
    def for_files(cls, format: str) -> DataKind:  # noqa: A002 (the field's word)
        """Return the settings by which bare files of a format are read. Raises `UserError` for an unknown format."""
        ...

    @classmethod
    def from_python(cls, task: Task, sources: Mapping[str, ExampleSource], folder: Path) -> DataKind | None:
        """Write examples from Python into ``folder``, and return settings that read them there and make ``task``.

        ``sources`` are by part: "train" and, where there is one, "test". The caller writes the knowledge base into the
        file `base_source` of the settings. None where tasks of this class are not recorded as this kind of data. What
        the settings have no place for keeps its default, so the caller compares the tasks. Raises `UserError` as the
        readers do.
        """
        ...

    def own_records(self, path: Path, refuse: Refuse) -> Iterator[JsonObject]:
        """Yield the records of a file as lines of this project's own format; malformed ones go to ``refuse``."""
        ...

    def open_parts(self, sources: Mapping[str, str], findings: Findings) -> DataParts:
        """Open files, by the names of their parts, to be read record by record; what is malformed is a finding."""
        ...

    def open_base(self, findings: Findings) -> BaseFile | None:
        """Open the knowledge base record by record; None where there is none beside the examples.

        A base that should be there and is not named is a finding.
        """
        ...

    def read_pairs(self, path: Path, task: Task) -> list[tuple[RelationInstance, Example]]:
        """Read a file as pairs of entities, each with the example that asks for its relation.

        Raises `UserError` where the task is none of relations, and as the readers do.
        """
        ...


def absolute_file(name: str) -> str:
    """Return a file's name from the root; "", addresses, names of the hub and what is built in stay as they are."""
    is_file = name != "" and not name.startswith(("builtin:", HUB_PREFIX)) and "://" not in name
    return str(Path(name).resolve()) if is_file else name


def relation_extraction(task: Task, command: str) -> RelationExtraction:
    """Return the task as the one kind that ``command`` knows. Raises `UserError` for any other."""
    if not isinstance(task, RelationExtraction):
        raise UserError(
            f"{command} is about relations between entities here, and the task of a run is {task.name}; evaluate, "
            f"predict, search, compare, report and lab know every task, and compare runs of one task alone"
        )
    return task
