"""How the explorer speaks of a run's task: what is typed, an example of it, and the labels of corrections."""

from __future__ import annotations

from retrograd.data.examples import DialogueExample
from retrograd.data.relations.instance import unmark
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.task import Task, TurnTask
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject

__all__ = ["asked_again", "find_label", "form_of", "labels_of", "typed_query"]


def form_of(task: Task) -> str:
    """Return what is typed: a "marked sentence", the "dialogue" turn by turn, or a "question"."""
    if isinstance(task, RelationExtraction):
        return "marked sentence"
    return "dialogue" if isinstance(task, TurnTask) else "question"


def labels_of(task: Task) -> list[str]:
    """Return the labels of a task; none where answers are free."""
    return list(task.phrases) if isinstance(task, RelationExtraction) else []


def find_label(task: Task, words: str, example: Example) -> str:
    """Return the label that an answer or a correction names, or the words themselves where there are no labels.

    Raises `UserError` for words that name none.
    """
    if not isinstance(task, RelationExtraction):
        return words
    label = words if words in task.phrases else task.read_answer(words, example).label
    if label is None:
        raise UserError(f"{words[:100]!r} names no relation of this run; /api/runs lists them")
    return label


def typed_query(task: Task, query: str) -> str:
    """Return the query of an example as it is typed: entities in ``<e1>`` and ``<e2>``; other texts as they are."""
    if not isinstance(task, RelationExtraction):
        return query
    try:
        text, head, tail = unmark(query)
    except UserError:
        return query
    marks = sorted([(head.start, head.end, "e1"), (tail.start, tail.end, "e2")])
    (start, end, first), (start2, end2, second) = marks
    return (
        f"{text[:start]}<{first}>{text[start:end]}</{first}>{text[end:start2]}"
        f"<{second}>{text[start2:end2]}</{second}>{text[end2:]}"
    )


def asked_again(task: Task, example: Example) -> JsonObject:
    """Return the fields by which a request asks for an example: ``query``, or ``turns``."""
    if isinstance(example, DialogueExample):
        return {"turns": [{"role": turn.role, "text": turn.text} for turn in example.history]}
    return {"query": typed_query(task, example.query)}
