"""Read annotated texts: records with entities and with relations between some of them, each of which is an instance.

Pairs of entities that no relation is annotated for are no instances, unless a format says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrograd.data.record_fields import Records, locate_errors, locate_tokens, number_records, require_new
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.rows import read_rows, row_kind
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, JsonValue, describe_value, peek_json_object
from retrograd.util.text_files import Refuse

__all__ = [
    "AnnotatedDocument",
    "AnnotatedText",
    "Mention",
    "ReadRelation",
    "locate_last_token",
    "read_annotated_texts",
    "read_integers",
    "read_label",
    "read_list",
    "read_text_records",
]

ReadRelation = Callable[[str], RelationInstance]
"""Return the instance of one annotated relation, with the id that is given. Raises `UserError` for a malformed one."""


@dataclass(frozen=True, slots=True)
class Mention:
    """An annotated entity, with its type where there is one."""

    span: Span
    kind: str = ""


@dataclass(frozen=True)
class AnnotatedText:
    """A text with its id, and its annotated relations, each with what it is called, as in ``relation 2``.

    The last word of that name makes the id of its instance unique in the text.
    """

    id: str
    relations: Iterable[tuple[str, ReadRelation]]


@dataclass(frozen=True)
class AnnotatedDocument:
    """A document with its sentences, its entities, each by all its mentions, and the relations between them.

    A triple has the places of head and tail in ``entities``; None where no relations are annotated. ``id`` is the
    ``document`` of its instances.
    """

    id: str
    text: str
    sentences: tuple[Span, ...]
    entities: tuple[tuple[Mention, ...], ...]
    triples: frozenset[tuple[int, str, int]] | None


def read_annotated_texts(
    path: Path, records: Records, read: Callable[[JsonObject, int], AnnotatedText | None], refuse: Refuse
) -> Iterator[RelationInstance]:
    """Yield the instances of the texts that ``read`` makes of records; it returns None for one to be left out.

    A malformed text goes to ``refuse`` once, a malformed relation alone, both with file and place.
    """
    first_places: dict[str, str] = {}

    def read_new(record: JsonObject, number: int, place: str) -> AnnotatedText | None:
        text = read(record, number)
        if text is not None:
            require_new(text.id, place.rsplit(", ", maxsplit=1)[-1], first_places)
        return text

    for place, number, record in records:
        text: AnnotatedText | None = None
        with locate_errors(path, place, refuse):
            text = read_new(record, number, place)
        if text is None:
            continue
        for name, relation in text.relations:
            with locate_errors(path, f"{place}, {name}", refuse):
                yield replace(relation(f"{text.id}:{name.split()[-1]}"), document=text.id)


def read_text_records(path: Path, refuse: Refuse) -> Records:
    """Return the records of JSON Lines, of a JSON list, or of a table that can hold lists (Parquet, Arrow).

    An object over several lines is one record.
    """
    if row_kind(path) in ("json", "jsonl"):
        number, line = text_files.first_line(path, "records")
        if peek_json_object(line) is not None:
            return number_records("line", text_files.read_jsonl(path, refuse))
        if not line.lstrip().startswith("["):
            whole = text_files.read_json(path)
            return number_records("line", [(number, whole)] if isinstance(whole, dict) else [])
    return read_rows(path, (), refuse)


def read_list(record: JsonObject, name: str) -> list[JsonValue]:
    """Return the list of a field, an empty one where it is missing or null. Raises `UserError` for anything else."""
    value = record.get(name)
    if value is None:
        return []
    if not isinstance(value, list):
        raise UserError(f"{name!r} is {describe_value(value)}; expected a list")
    return value


def read_integers(value: JsonValue, count: int, name: str, expected: str) -> list[int]:
    """Return the whole numbers that a list begins with. Raises `UserError`, with what was ``expected``, for others."""
    if isinstance(value, list) and len(value) >= count:
        numbers = [number for number in value[:count] if type(number) is int]
        if len(numbers) == count:
            return numbers
    raise UserError(f"{name} is {describe_value(value)}; expected {expected}")


def read_label(value: JsonValue, name: str) -> str:
    """Return a label. Raises `UserError` for what is no text."""
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{name} is {describe_value(value)}; expected a string that is not blank")
    return value


def locate_last_token(tokens: Sequence[str], first: int, last: int, name: str) -> Span:
    """Return the characters of tokens ``first`` to ``last``, both inclusive, of the tokens joined by spaces.

    Raises `UserError` for positions that are none of the tokens.
    """
    if not 0 <= first <= last < len(tokens):
        raise UserError(
            f"{name} [{first}, {last}] is no span of {len(tokens)} tokens; positions count tokens from 0, and the end "
            f"is the last token itself"
        )
    return locate_tokens(tokens, (first, last + 1), name)
