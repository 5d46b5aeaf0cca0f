"""Conversion of frozen dataclasses from plain mappings (TOML, JSON) and back, strictly: an unknown key or a wrong
type is an error.

Nesting is by dataclass-typed fields. Permitted leaves: str, int, float, bool, ``Literal`` of strings, and tuples of
strings; each may be optional, as in ``str | None``, or one of a few words instead, as in
``bool | Literal["auto"]``. Everything else about a record's values is checked by its own
``__post_init__``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value, is_storable, parse_toml, suggest_name
from retrograd.util.text_files import read_lines

__all__ = ["read_record", "read_toml", "read_value", "record_mapping"]

Record = TypeVar("Record")


def read_toml(path: Path) -> dict[str, object]:
    """Return the tables of a TOML file. Raises `UserError` with the file, and with the line where that is known."""
    text = "\n".join(line for _, line in read_lines(path))
    return parse_toml(text, str(path))


def read_record(kind: type[Record], values: Mapping[str, object], where: str) -> Record:
    """Return a ``kind`` from a mapping; fields left out keep their defaults.

    Raises `UserError`, beginning with ``where``, for an unknown key (naming the nearest), a missing one that has no
    default, or a value of another type.
    """
    hints = get_type_hints(kind)
    settable = [field for field in fields(kind) if field.init]  # pyright: ignore[reportArgumentType]
    names = [field.name for field in settable]
    for key in values:
        if key not in names:
            raise UserError(f"{where}: unknown key {key!r}; {suggest_name(key, names)}")
    values_by_name = {key: read_value(hints[key], value, f"{where}: {key}") for key, value in values.items()}
    missing = [field.name for field in settable if _required(field) and field.name not in values_by_name]
    if missing:
        raise UserError(f"{where}: needs {', '.join(repr(name) for name in missing)}")
    try:
        return kind(**values_by_name)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _required(field: Field[object]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def read_value(hint: object, value: object, where: str) -> object:
    """Return ``value`` as the type ``hint``. Raises `UserError` with ``where``, the value and what was expected."""
    if isinstance(hint, type) and is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise UserError(f"{where} is {describe_value(value)}; expected a table of settings")
        return read_record(hint, value, where)
    if get_origin(hint) is Union:  # of a literal and a type
        literal, other = sorted(get_args(hint), key=lambda one: get_origin(one) is not Literal)
        if isinstance(value, str) and value in get_args(literal):
            return value
        expected = f"{', '.join(repr(choice) for choice in get_args(literal))} or {_NAMES.get(other, other)}"
        if other is float and type(value) is int and is_storable(value):
            return float(value)
        if type(value) is not other:
            raise UserError(f"{where} is {describe_value(value)}; expected {expected}")
        return value
    if get_origin(hint) is UnionType and NoneType in get_args(hint):
        (inner,) = (argument for argument in get_args(hint) if argument is not NoneType)
        return None if value is None else read_value(inner, value, where)
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        if value not in allowed:
            raise UserError(
                f"{where} is {describe_value(value)}; expected one of {', '.join(repr(choice) for choice in allowed)}"
            )
        return value
    if get_origin(hint) is tuple:
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise UserError(f"{where} is {describe_value(value)}; expected a list of strings")
        return tuple(value)
    if hint is float and type(value) is int and is_storable(value):
        return float(value)
    if not isinstance(hint, type) or type(value) is not hint:
        raise UserError(f"{where} is {describe_value(value)}; expected {_NAMES.get(hint, hint)}")
    if isinstance(value, int) and not is_storable(value):
        raise UserError(f"{where} is {describe_value(value)}; expected a number of at most 64 bits")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{where} is {value}; expected a number")
    return value


_NAMES: dict[object, str] = {str: "text in quotes", int: "a whole number", float: "a number", bool: "true or false"}


def record_mapping(record: object) -> JsonObject:
    """Return the plain mapping from which `read_record` makes an equal record."""
    if not is_dataclass(record) or isinstance(record, type):
        raise TypeError(f"{record!r} is not a record")
    # The one place that reads fields of our records by name: it is what makes a record generic.
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record) if field.init}


def _plain(value: object) -> JsonValue:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return record_mapping(value)
