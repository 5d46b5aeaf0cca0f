"""Say where records have a field, where it is named or nested in another way than ours.

A path is the name of a field, whatever signs it has, or one of JMESPath (https://jmespath.org): ``input``,
``meta.question``, ``output[*].answer``, ``turns[-1].text``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.data.record_fields import locate_errors
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

if TYPE_CHECKING:
    from jmespath.parser import ParsedResult

    from retrograd.data.record_fields import Records

__all__ = [
    "DialogueFields",
    "FieldMap",
    "PassageFields",
    "QuestionFields",
    "RelationFields",
    "map_record",
    "map_records",
]


@dataclass(frozen=True)
class FieldMap:
    """The paths of fields by their names here; "" is a field that is read by its own names."""

    @property
    def paths(self) -> dict[str, str]:
        """Return the fields that have a path."""
        # A map of fields is a record of which every field is a path: it is what makes the map generic.
        every = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: path for name, path in every.items() if path}


@dataclass(frozen=True)
class QuestionFields(FieldMap):
    """Where records have the question, its answers, the ids of gold passages and an id."""

    question: str = ""
    answers: str = ""
    gold_passages: str = ""
    id: str = ""


@dataclass(frozen=True)
class DialogueFields(FieldMap):
    """Where records have the turns so far, the question that follows them, its answers, and what belongs to them."""

    history: str = ""
    question: str = ""
    answers: str = ""
    gold_passages: str = ""
    knowledge: str = ""
    id: str = ""


@dataclass(frozen=True)
class RelationFields(FieldMap):
    """Where records have the text (or its tokens), head and tail, the relation between them, and the types of both."""

    text: str = ""
    tokens: str = ""
    head: str = ""
    tail: str = ""
    relation: str = ""
    head_type: str = ""
    tail_type: str = ""
    id: str = ""


@dataclass(frozen=True)
class PassageFields(FieldMap):
    """Where records have the text of a passage, its title and an id."""

    text: str = ""
    title: str = ""
    id: str = ""


def map_records(path: Path, records: Records, field_map: FieldMap, refuse: Refuse = raise_error) -> Records:
    """Yield the records of a file with the fields of the map under their names here, beside all that they have.

    Refuses, with file and place, records in which a path fails.
    """
    for place, number, record in records:
        mapped: JsonObject | None = None
        with locate_errors(path, place, refuse):
            mapped = map_record(record, field_map)
        if mapped is not None:
            yield place, number, mapped


def map_record(record: JsonObject, field_map: FieldMap) -> JsonObject:
    """Return a record with the fields of the map; a path that leads nowhere gives none."""
    found = {name: _find(record, name, path) for name, path in field_map.paths.items()}
    return {**record, **{name: value for name, value in found.items() if value is not None}}


def _find(record: JsonObject, name: str, path: str) -> JsonValue:
    if path in record or not _is_path(path):
        return record.get(path)
    try:
        return _compile(name, path).search(record)
    except ValueError as error:  # a function of JMESPath that does not take what is there
        raise UserError(f"fields.{name} = {path!r}: {_explain(error)}") from None


def _is_path(text: str) -> bool:
    """Return whether a path is more than the name of a field."""
    return not _OPERATORS.isdisjoint(text)


@lru_cache
def _compile(name: str, path: str) -> ParsedResult:
    """Return a path, to be searched for in records. Raises `UserError` for what is none."""
    import jmespath

    try:
        return jmespath.compile(path)
    except ValueError as error:
        raise UserError(
            f"fields.{name} is {path!r}, which is neither a field of the record nor a path such as output[*].answer "
            f"({_explain(error)})"
        ) from None


def _explain(error: ValueError) -> str:
    """Return what jmespath says, without the drawing of the place."""
    return " ".join(str(error).split()).partition(", for expression")[0]


_OPERATORS = frozenset(".[]{}()*|&@`'\"?!<>=")
