"""Examples and passages from Python, written as the files that an ordinary experiment names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from retrograd.experiments.data import kinds
from retrograd.experiments.data.example_files import ExampleSource
from retrograd.experiments.data.source import DataKind
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.saved_tasks import task_record
from retrograd.tasks.task import Task
from retrograd.types import UserError
from retrograd.util.text_files import write_jsonl

__all__ = ["RecordedData", "record_data"]


@dataclass(frozen=True)
class RecordedData:
    """Files of a run's own, and the settings that read them; ``check`` compares what they give with what was given."""

    settings: DataKind
    task: Task
    base: KnowledgeBase

    def check(self, task: Task, base: KnowledgeBase) -> None:
        """Raise `UserError` where the files make another task or another base than the model's."""
        if task != self.task:
            (_, recorded), (_, expected) = task_record(self.task), task_record(task)
            name, model_value, run_value = _first_difference(recorded, expected)
            raise UserError(
                f"the model's task has {name} = {model_value!r}, and the settings of data that a run records make it "
                f"{run_value!r}; give the model a task with that value, or train by an experiment: rg.run"
            )
        if base.fingerprint != self.base.fingerprint:
            remedy = (
                "make the base of the training instances: "
                "rg.KnowledgeBase.from_passages(task.passage(one) for one in train)"
                if self.settings.train_is_base
                else "give passages whose fields are plain text"
            )
            raise UserError(
                f"the model's knowledge base has {len(self.base)} passages, and the data of this run make another of "
                f"{len(base)}; {remedy}"
            )


def record_data(
    task: Task, base: KnowledgeBase, examples: ExampleSource, eval_examples: ExampleSource | None, folder: Path
) -> RecordedData:
    """Write examples and passages into ``folder``, in the documented formats.

    Raises `UserError` for a task that the settings of no kind of data make, and as the readers do.
    """
    sources = {"train": examples} | ({} if eval_examples is None else {"test": eval_examples})
    settings = next((made for kind in kinds.KINDS if (made := kind.from_python(task, sources, folder))), None)
    if settings is None:
        raise UserError(
            f"the model's task is an object of your class {type(task).__qualname__}, and a run records its task as "
            f"settings of a kind of data; train with rg.QuestionAnswering, rg.GroundedDialogue or "
            f"rg.RelationExtraction, or add a kind of data (CONTRIBUTING.md)"
        )
    if settings.base_source:
        passages = ({"id": passage.id, "title": passage.title, "text": passage.text} for passage in base)
        write_jsonl(Path(settings.base_source), passages)
    return RecordedData(settings, task, base)


def _first_difference(first: Mapping[str, object], second: Mapping[str, object]) -> tuple[str, object, object]:
    name = next(name for name, value in first.items() if second.get(name) != value)
    return name, first[name], second.get(name)
