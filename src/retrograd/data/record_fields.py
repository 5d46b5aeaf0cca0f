"""Fields of a JSON record, each of the type it should have; errors name field, finding and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from retrograd.types import Span, UserError
from retrograd.util.guards import JsonValue, advice

__all__ = [
    "kind_of",
    "number_pair",
    "optional_string",
    "record_id",
    "refuse_unknown",
    "require_fields",
    "require_new",
    "string",
    "token_list",
    "token_span",
    "whole_number",
]


def refuse_unknown(record: Mapping[str, JsonValue], known: Sequence[str]) -> None:
    """Raises `UserError` for a field that is not known, with the nearest name."""
    for name in record:
        if name not in known:
            raise UserError(f"unknown field {name!r}; {advice(name, known)} Put what else you keep under 'metadata'")


def require_fields(record: Mapping[str, JsonValue], required: Sequence[str]) -> None:
    """Raises `UserError` for a missing field."""
    for name in required:
        if name not in record:
            raise UserError(f"no field {name!r}; the record has {', '.join(record) or 'no fields'}")


def string(record: Mapping[str, JsonValue], name: str) -> str:
    """Text. Raises `UserError` for anything else."""
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{name!r} is {kind_of(value)}; expected a string")
    return value


def optional_string(record: Mapping[str, JsonValue], name: str) -> str | None:
    """Text, or None where the field is missing or null. Raises `UserError` for anything else."""
    return None if record.get(name) is None else string(record, name)


def record_id(record: Mapping[str, JsonValue], number: int) -> str:
    """The record's id as a string; without one, the number of its line. Raises `UserError` for another type."""
    value = record.get("id", number)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise UserError(f"'id' is {kind_of(value)}; expected a string or a whole number")
    return str(value)


def require_new(id_: str, number: int, seen: dict[str, int], unit: str = "line") -> None:
    """Remembers the id's line, or record. Raises `UserError` for an id that was there before."""
    if id_ in seen:
        raise UserError(f"id {id_!r} stands already at {unit} {seen[id_]}; ids must differ, predictions are kept by id")
    seen[id_] = number


def token_list(record: Mapping[str, JsonValue], name: str) -> list[str]:
    """A list of strings, none empty. Raises `UserError` with the position of what is none."""
    value = record[name]
    if not isinstance(value, list):
        raise UserError(f"{name!r} is {kind_of(value)}; expected a list of strings")
    tokens: list[str] = []
    for position, token in enumerate(value):
        if not isinstance(token, str) or not token:
            raise UserError(f"token {position} is {kind_of(token)}; expected a non-empty string")
        tokens.append(token)
    return tokens


def whole_number(record: Mapping[str, JsonValue], name: str) -> int:
    """A whole number. ``True`` is an `int` to Python and a mistake here. Raises `UserError`."""
    value = record[name]
    if isinstance(value, bool) or not isinstance(value, int):
        raise UserError(f"{name!r} is {kind_of(value)}; expected a whole number")
    return value


def number_pair(record: Mapping[str, JsonValue], name: str) -> tuple[int, int]:
    """Two whole numbers. Raises `UserError` for anything else."""
    value = record[name]
    if isinstance(value, list) and len(value) == 2:
        start, end = value
        if type(start) is int and type(end) is int:
            return start, end
    written = json.dumps(value, ensure_ascii=False)[:60]
    raise UserError(f"{name!r} is {written}; expected two whole numbers [start, end], the end exclusive")


def kind_of(value: JsonValue) -> str:
    """What a person calls a JSON value of this type."""
    if value is None:
        return "null"
    if value == "":
        return "an empty string"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), f"a value of type {type(value).__name__}")


def token_span(tokens: Sequence[str], pair: tuple[int, int], name: str) -> Span:
    """Character offsets of tokens ``first`` (inclusive) to ``last`` (exclusive) in the tokens joined by one space.

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
