"""Tell what a file of data holds, and show its first record as it is read, so that a person can judge it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

from retrograd.data.dialogues import detect_dialogue_format, read_dialogues
from retrograd.data.examples import DialogueExample, gold_passages
from retrograd.data.passages import detect_corpus_format, holds_documents, read_corpus
from retrograd.data.questions import detect_question_format, read_questions
from retrograd.data.relations.formats import detect_format, read_relations
from retrograd.data.relations.instance import RelationExample, RelationInstance, unmark
from retrograd.data.rows import first_rows
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.kinds import open_files
from retrograd.experiments.data.part_reading import DataParts
from retrograd.experiments.data.source import DataKind
from retrograd.types import Example, Passage, UserError
from retrograd.util.guards import JsonObject, first_line
from retrograd.util.text_files import Refuse

__all__ = ["FileReading", "describe_reading", "recognise_kind"]

_LOOKED_AT = 20
_LONGEST = 300

Record = RelationInstance | Example | Passage


@dataclass(frozen=True)
class FileReading:
    """What a file is taken for, and the fields of its first record as they are read; none where nothing could be."""

    source: str
    kind: str
    format: str
    first: tuple[tuple[str, str], ...]

    def record(self) -> JsonObject:
        """Return the reading as JSON."""
        return {**asdict(self), "first": dict(self.first)}


@dataclass(frozen=True)
class _Kind:
    """How files of a kind are recognised and read with their own settings."""

    detect: Callable[[Path], str]
    read: Callable[[Path, Refuse], Iterable[Record]]


_KINDS: Mapping[str, _Kind] = {
    "relations": _Kind(detect_format, lambda path, refuse: read_relations(path, refuse=refuse)),
    "dialogue": _Kind(detect_dialogue_format, lambda path, refuse: read_dialogues(path, refuse=refuse)),
    "questions": _Kind(
        detect_question_format, lambda path, refuse: read_questions(path, unanswerable="keep", refuse=refuse)
    ),
    "corpus": _Kind(detect_corpus_format, lambda path, refuse: read_corpus(path, refuse=refuse)),
}
"""What files can hold, in the order in which they are tried."""

_TELLING: Mapping[str, frozenset[str]] = {
    "relations": frozenset({"head", "tail"}),
    "dialogue": frozenset({"history"}),
    "questions": frozenset({"question"}),
}
"""Fields that records of one kind alone have: a file whose records name all of them is of that kind, and what is wrong
with it are faults of that kind."""
_MAPPED: Mapping[str, frozenset[str]] = {
    "dialogue": frozenset({"history"}),
    "questions": frozenset({"question", "answers"}),
    "relations": frozenset({"head", "tail", "relation", "tokens", "head_type", "tail_type"}),
}
"""Fields that a map of one kind alone has, where the kinds before it have none of theirs."""


def recognise_kind(path: Path, changes: Sequence[str] = ()) -> str:
    """Return what a file holds, judged by ``changes`` that map its fields (``data.fields.question=ask``), else by its
    first records: a dialogue has an earlier turn in one of them.

    A few malformed records do not make a file one of another kind. Raises `UserError`, with what each kind lacks, where
    they are of no kind.
    """
    mapped = _mapped_kind(changes)
    if mapped is not None:
        return mapped
    reasons: list[str] = []
    telling = _telling_kind(path)
    for name, kind in _KINDS.items():
        refused: list[UserError] = []
        try:
            found = list(islice(kind.read(path, refused.append), _LOOKED_AT))
        except UserError as error:
            refused.append(error)
            found = []
        if name == "corpus" and telling is not None:
            return telling
        is_own = name != "dialogue" or any(map(_has_history, found))
        most_refused = 0 if name == "corpus" else len(found) // 2
        if found and is_own and len(refused) <= most_refused:
            return name
        if refused:
            reasons.append(f"as {name}: {first_line(refused[0]).removeprefix(str(path)).lstrip(':, ')}")
    if holds_documents(path):
        return "corpus"
    kinds = ", ".join(_KINDS)
    raise UserError("\n  ".join([f"{path} seems to hold none of {kinds}; say which it is with --kind", *reasons]))


def _mapped_kind(changes: Sequence[str]) -> str | None:
    """Return the kind whose fields the assignments map; None where they map none."""
    names = [change.partition("=")[0].strip() for change in changes]
    if any(name.startswith("data.base_") for name in names):
        return "corpus"
    fields = {name.removeprefix("data.fields.") for name in names if name.startswith("data.fields.")}
    return next((kind for kind, own in _MAPPED.items() if own & fields), None)


def _telling_kind(path: Path) -> str | None:
    """Return the kind whose own fields stand in one of the first records; None where none has them."""
    try:
        rows = first_rows(path, count=_LOOKED_AT)
    except UserError:
        return None
    return next((kind for kind, own in _TELLING.items() if any(own <= row.keys() for row in rows)), None)


def describe_reading(path: Path, kind: str, format: str, settings: DataKind) -> FileReading:  # noqa: A002
    """Return what a file of a known ``kind`` is taken for, and its first record; arguments are as for `open_files`."""
    try:
        detected = _KINDS[kind].detect(path) if format == "auto" else format
    except UserError:
        detected = format
    first = _first_record(open_files([path], kind, settings, Findings())[0])
    fields = () if first is None else tuple((name, text[:_LONGEST]) for name, text in _fields(*first) if text)
    return FileReading(str(path), kind, detected, fields)


def _first_record(data: DataParts) -> tuple[Example | Passage, str | None] | None:
    """Return the first example with its label, or the first passage; None where nothing can be read."""
    if data.base is not None:
        passage = next(iter(data.base.passages()), None)
        return None if passage is None else (passage, None)
    return next((next(iter(part.examples()), None) for part in data.parts), None)


def _has_history(record: Record) -> bool:
    return isinstance(record, DialogueExample) and len(record.history) > 1


def _fields(record: Example | Passage, label: str | None) -> list[tuple[str, str]]:
    """Return the names and texts of what is read of a record."""
    if isinstance(record, Passage):
        return [("id", record.id), ("title", record.title), ("text", record.text)]
    if isinstance(record, RelationExample):
        text, head, tail = unmark(record.query)
        entities = ((head, record.head_type), (tail, record.tail_type))
        names = [f"{span.of(text)} ({type_})" if type_ else span.of(text) for span, type_ in entities]
        return [("id", record.id), ("text", text), ("head", names[0]), ("tail", names[1]), ("relation", label or "")]
    return [
        ("id", record.id),
        ("dialogue" if isinstance(record, DialogueExample) else "question", record.query.replace("\n", " / ")),
        ("answers", " | ".join(record.targets)),
        ("gold passages", " | ".join(gold_passages(record))),
    ]
