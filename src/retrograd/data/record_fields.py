"""JSON records and their fields, checked for their type; errors name the field, its value and what to do.

Data sets name some fields in several ways, and write some lists as one string: `find_field` and `read_strings`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from retrograd.data.relations.instance import RelationInstance
from retrograd.types import Example, Span, UserError
from retrograd.util.guards import JsonObject, JsonValue, parse_text_list, suggest_name
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "Records",
    "find_field",
    "find_id",
    "locate_errors",
    "locate_tokens",
    "missing_field",
    "name_type",
    "number_records",
    "read_every_string",
    "read_id",
    "read_number_pair",
    "read_objects",
    "read_optional_string",
    "read_records",
    "read_string",
    "read_strings",
    "read_tokens",
    "read_whole_number",
    "refuse_unknown",
    "require_fields",
    "require_known",
    "require_new",
]

Item = TypeVar("Item", bound=Example | RelationInstance)
Records = Iterable[tuple[str, int, JsonObject]]
"""Place, number and value of every record; a place ends with what the number counts, as in ``line 7, record 2``."""


@contextmanager
def locate_errors(path: Path, place: str, refuse: Refuse = raise_error) -> Iterator[None]:
    """Pass a `UserError` of the block to ``refuse``, with file and place before its message."""
    try:
        yield
    except UserError as error:
        refuse(UserError(f"{path}, {place}: {error}"))


def number_records(unit: str, records: Iterable[tuple[int, JsonObject]]) -> Records:
    """Return numbered records with their places; ``unit`` is what the numbers count."""
    return ((f"{unit} {number}", number, record) for number, record in records)


def read_records(
    path: Path, records: Records, read: Callable[[JsonObject, int], Item | None], refuse: Refuse
) -> Iterator[Item]:
    """Yield what ``read`` makes of each record, but for None.

    A malformed record and one with an id that has occurred before go to ``refuse``, with file and place.
    """
    first_places: dict[str, str] = {}
    for place, number, record in records:
        with locate_errors(path, place, refuse):
            item = read(record, number)
            if item is not None:
                require_new(item.id, place.split(", ")[-1], first_places)
                yield item


def require_known(value: str, known: Sequence[str], what: str) -> None:
    """Raise `UserError` for a value that is not one of the known ones, with the nearest of them."""
    if value not in known:
        raise UserError(f"unknown {what} {value!r}; {suggest_name(value, known)}")


def refuse_unknown(record: Mapping[str, JsonValue], known: Sequence[str]) -> None:
    """Raise `UserError` for an unknown field, with the nearest known name."""
    for name in record:
        if name not in known:
            raise UserError(f"unknown field {name!r}; {suggest_name(name, known)} Put further fields under 'metadata'")


def require_fields(record: Mapping[str, JsonValue], required: Sequence[str]) -> None:
    """Raise `UserError` for a missing field."""
    for name in required:
        if name not in record:
            raise missing_field(record, name)


def missing_field(record: Mapping[str, JsonValue], name: str) -> UserError:
    """Return the error of a record that lacks a field."""
    return UserError(f"no field {name!r}; the record has {', '.join(record) or 'no fields'}")


def read_string(record: Mapping[str, JsonValue], name: str) -> str:
    """Return the text of a field. Raises `UserError` for anything else."""
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{name!r} is {name_type(value)}; expected a string")
    return value


def read_optional_string(record: Mapping[str, JsonValue], name: str) -> str | None:
    """Return the text of a field, or None where the field is missing or null. Raises `UserError` for anything else."""
    return None if record.get(name) is None else read_string(record, name)


def read_id(record: Mapping[str, JsonValue], number: int) -> str:
    """Return the record's id as a string; without one, the number of its line. Raises `UserError` for another type."""
    value = record.get("id", number)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"'id' is {name_type(value)}; expected a string or a whole number")
    return str(value)


def find_id(record: Mapping[str, JsonValue], number: int, synonyms: Sequence[str]) -> str:
    """Return the record's id, whatever its field is called, as `read_id` does; a null one counts as none."""
    name = find_field(record, synonyms)
    return str(number) if name is None else read_id({"id": record[name]}, number)


def require_new(id_: str, place: str, first_places: dict[str, str]) -> None:
    """Record in ``first_places`` where an id occurs. Raises `UserError` for an id that has occurred before."""
    if id_ in first_places:
        raise UserError(f"id {id_!r} is already used at {first_places[id_]}; give every record an id of its own")
    first_places[id_] = place


def read_tokens(record: Mapping[str, JsonValue], name: str) -> list[str]:
    """Return a list of non-empty strings. Raises `UserError` with the position of any other element."""
    value = record[name]
    if not isinstance(value, list):
        raise UserError(f"{name!r} is {name_type(value)}; expected a list of strings")
    tokens: list[str] = []
    for position, token in enumerate(value):
        if not isinstance(token, str) or not token:
            raise UserError(f"token {position} is {name_type(token)}; expected a non-empty string")
        tokens.append(token)
    return tokens


def read_whole_number(record: Mapping[str, JsonValue], name: str) -> int:
    """Return a whole number. Raises `UserError` for anything else, ``True`` and ``False`` included."""
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name!r} is {name_type(value)}; expected a whole number")
    return value


def read_number_pair(record: Mapping[str, JsonValue], name: str) -> tuple[int, int]:
    """Return two whole numbers. Raises `UserError` for anything else."""
    value = record[name]
    if isinstance(value, list) and len(value) == 2:
        start, end = value
        if type(start) is int and type(end) is int:
            return start, end
    text = json.dumps(value, ensure_ascii=False)[:60]
    raise UserError(f"{name!r} is {text}; expected two whole numbers [start, end], the end exclusive")


def name_type(value: JsonValue) -> str:
    """Return the plain name of the type of a JSON value."""
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def locate_tokens(tokens: Sequence[str], pair: tuple[int, int], name: str) -> Span:
    """Return the characters of tokens ``first`` (inclusive) to ``last`` (exclusive) of the tokens joined by spaces.

    Raises `UserError` for positions outside the tokens and for an empty range.
    """
    first, last = pair
    if not 0 <= first <= last <= len(tokens):
        raise UserError(
            f"{name} [{first}, {last}) lies outside the {len(tokens)} tokens; "
            "positions count tokens from 0 and the end is exclusive"
        )
    if first == last:
        raise UserError(f"{name} [{first}, {last}) covers no token; the end is exclusive, one past the last token")
    start = sum(len(token) + 1 for token in tokens[:first])
    return Span(start, start + len(" ".join(tokens[first:last])))


def find_field(record: Mapping[str, JsonValue], synonyms: Sequence[str]) -> str | None:
    """Return the first name for which the record has a value other than null, or None."""
    return next((name for name in synonyms if record.get(name) is not None), None)


def read_strings(value: JsonValue, name: str) -> tuple[str, ...]:
    """Return the distinct strings of a field in order, stripped; a string is a list of one, null an empty list.

    A string that is itself the text of a list of strings, ``"['one', 'two']"``, is that list: so tables have them, and
    what was made of tables. The entries of a list are taken as they are.

    Raises `UserError` for anything else and for a blank string.
    """
    return tuple(dict.fromkeys(read_every_string(value, name)))


def read_every_string(value: JsonValue, name: str) -> list[str]:
    """Return the strings of a field in order, stripped, repetitions included."""
    if value is None:
        return []
    if isinstance(value, str) and value.lstrip().startswith("["):
        listed = parse_text_list(value)
        value = value if listed is None else [*listed]
    entries = value if isinstance(value, list) else [value]
    texts: list[str] = []
    for position, entry in enumerate(entries):
        if not isinstance(entry, str) or not entry.strip():
            kind = "blank" if isinstance(entry, str) else name_type(entry)
            where = f"entry {position} of {name!r}" if isinstance(value, list) else repr(name)
            raise UserError(f"{where} is {kind}; expected a string that is not blank, or a list of such strings")
        texts.append(entry.strip())
    return texts


def read_objects(record: Mapping[str, JsonValue], name: str) -> list[JsonObject]:
    """Return a list of objects. Raises `UserError` for anything else and for a missing one."""
    value = record.get(name)
    if not isinstance(value, list):
        kind = name_type(value) if name in record else "missing"
        raise UserError(f"{name!r} is {kind}; expected a list of objects")
    records: list[JsonObject] = []
    for position, entry in enumerate(value):
        if not isinstance(entry, dict):
            raise UserError(f"entry {position} of {name!r} is {name_type(entry)}; expected an object")
        records.append(entry)
    return records
