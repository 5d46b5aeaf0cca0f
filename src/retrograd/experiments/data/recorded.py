"""Examples and passages from Python, written as the files that an ordinary experiment names."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pyarrow as pa

from retrograd.data.examples import DialogueExample, Turn, gold_passages
from retrograd.data.readers import Source, read_dialogues, read_questions, read_relations
from retrograd.data.relations.instance import RelationInstance
from retrograd.experiments.data.corpus import CorpusData, DialogueData, QuestionData
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.record import relation_extraction_record
from retrograd.tasks.task import Task
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.records import record_mapping
from retrograd.util.text_files import write_jsonl

__all__ = ["ExampleSource", "RecordedData", "record_data"]

Item = TypeVar("Item")
ExampleSource = Source | Iterable[Example] | Iterable[RelationInstance]
"""A file, a table, records, or examples that were read already."""

_TRAIN, _TEST, _PASSAGES = "train.jsonl", "test.jsonl", "passages.jsonl"


@dataclass(frozen=True)
class RecordedData:
    """Files of a run's own, and the settings that read them; ``check`` compares what they give with what was given."""

    settings: DataKind
    task: Task
    base: KnowledgeBase

    def check(self, task: Task, base: KnowledgeBase) -> None:
        """Raises `UserError` where the files make another task or another base than the model's."""
        if task != self.task:
            name, ours, theirs = _first_difference(_attributes(self.task), _attributes(task))
            raise UserError(
                f"the model's task has {name} = {ours!r}, and the settings of data that a run records make it "
                f"{theirs!r}; give the model a task with that value, or train by an experiment: rg.run"
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
    parts = {_TRAIN: examples} | ({} if eval_examples is None else {_TEST: eval_examples})
    if type(task) is RelationExtraction:
        settings: RelationData | CorpusData = _relation_settings(task)
        for name, source in parts.items():
            write_jsonl(folder / name, map(_relation_record, _read(source, RelationInstance, read_relations)))
    elif type(task) is QuestionAnswering:
        settings = replace(_question_settings(task), base=str(folder / _PASSAGES))
        for name, source in parts.items():
            write_jsonl(folder / name, map(_question_record, _read(source, Example, read_questions)))
    elif type(task) is GroundedDialogue:
        settings = replace(_dialogue_settings(task), base=str(folder / _PASSAGES))
        for name, source in parts.items():
            write_jsonl(folder / name, map(_dialogue_record, _read(source, Example, read_dialogues)))
    else:
        raise UserError(
            f"the model's task is an object of your class {type(task).__qualname__}, and a run records its task as "
            f"settings of a kind of data; train with rg.QuestionAnswering, rg.GroundedDialogue or "
            f"rg.RelationExtraction, or add a kind of data (CONTRIBUTING.md)"
        )
    if not settings.train_is_base:
        passages = ({"id": one.id, "title": one.title, "text": one.text} for one in base)
        write_jsonl(folder / _PASSAGES, passages)
    test = "" if eval_examples is None else str(folder / _TEST)
    return RecordedData(replace(settings, train=str(folder / _TRAIN), test=test), task, base)


def _question_settings(task: QuestionAnswering) -> QuestionData:
    return QuestionData(
        base_format="jsonl",
        unanswerable="drop" if task.no_answer is None else "keep",
        query_prefix=task.query_prefix,
        passage_prefix=task.passage_prefix,
        titles=task.titles,
        instruction=task.instruction,
        most_share=task.evidence.most_share,
        most_passages=task.evidence.most_passages,
        question_overlap=task.evidence.question_overlap,
        metric=task.primary_metric,  # pyright: ignore[reportArgumentType]  (the task has checked it)
    )


def _dialogue_settings(task: GroundedDialogue) -> DialogueData:
    return DialogueData(
        base_format="jsonl",
        unanswerable="drop" if task.no_answer is None else "keep",
        query_prefix=task.query_prefix,
        passage_prefix=task.passage_prefix,
        titles=task.titles,
        instruction=task.instruction,
        turns=task.turns,
        user_name=task.user_name,
        agent_name=task.agent_name,
        least_overlap=task.evidence.least,
        near_best=task.evidence.near_best,
        most_share=task.evidence.most_share,
        most_passages=task.evidence.most_passages,
        metric=task.primary_metric,  # pyright: ignore[reportArgumentType]  (the task has checked it)
    )


def _relation_settings(task: RelationExtraction) -> RelationData:
    known = {"semeval2010_task8": "semeval", "tacred": "tacred", "retacred": "retacred"}
    labels = known.get(task.name, "from_train")
    return RelationData(
        train="",
        test="",
        labels=labels,  # pyright: ignore[reportArgumentType]  (one of the four above)
        negative=(task.negative or "") if labels == "from_train" else "",
        metric="macro" if task.metric == "macro" else "micro",
        query_style=task.query_style,  # pyright: ignore[reportArgumentType]  (the task has checked its styles)
        neighbour_style=task.neighbour_style,  # pyright: ignore[reportArgumentType]
        target_style=task.target_style,  # pyright: ignore[reportArgumentType]
        input_style=task.input_style,  # pyright: ignore[reportArgumentType]
        key_style=task.key_style,  # pyright: ignore[reportArgumentType]
        exclude=task.exclude,  # pyright: ignore[reportArgumentType]
        type_constraints=task.constraints is not None,
    )


def _read(source: ExampleSource, kind: type[Item], read: Callable[[Source], Sequence[Item]]) -> list[Item]:
    """Return the items of a source: as they are where they were read already, else as ``read`` reads them."""
    if isinstance(source, str | Path | pa.Table):
        return list(read(source))
    items: list[object] = list(source)  # pyright: ignore[reportArgumentType]  (a table was read above)
    ready = [one for one in items if isinstance(one, kind)]
    records = [one for one in items if isinstance(one, Mapping)]
    if max(len(ready), len(records)) < len(items):
        kinds = sorted({type(one).__name__ for one in items})
        raise UserError(
            f"the examples are of the types {', '.join(kinds)}; expected {kind.__name__} objects, or records, alone"
        )
    return ready or list(read(records))


def _question_record(example: Example) -> JsonObject:
    return {
        "id": example.id,
        "question": example.query,
        "answers": list(example.targets),
        "gold_passages": list(gold_passages(example)),
    }


def _dialogue_record(example: Example) -> JsonObject:
    dialogue = example if isinstance(example, DialogueExample) else None
    history = (Turn("user", example.query),) if dialogue is None else dialogue.history
    return {
        "id": example.id,
        "history": [{"role": turn.role, "text": turn.text} for turn in history],
        "answers": list(example.targets),
        "gold_passages": list(gold_passages(example)),
        "knowledge": [] if dialogue is None else list(dialogue.knowledge),
    }


def _relation_record(instance: RelationInstance) -> JsonObject:
    return {
        "id": instance.id,
        "text": instance.text,
        "head": [instance.head.start, instance.head.end],
        "tail": [instance.tail.start, instance.tail.end],
        "relation": instance.relation,
        "head_type": instance.head_type,
        "tail_type": instance.tail_type,
    }


def _attributes(task: Task) -> JsonObject:
    return relation_extraction_record(task) if isinstance(task, RelationExtraction) else record_mapping(task)


def _first_difference(ours: JsonObject, theirs: JsonObject) -> tuple[str, object, object]:
    name = next(name for name, value in ours.items() if theirs.get(name) != value)
    return name, ours[name], theirs.get(name)
