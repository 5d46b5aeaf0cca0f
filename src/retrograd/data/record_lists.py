"""Fields of a JSON record that data sets name and shape in several ways: synonyms, and lists that may be one string."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from retrograd.data.record_fields import kind_of
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["every_string", "located", "named", "objects", "strings"]


@contextmanager
def located(path: Path, place: str, refuse: Refuse = raise_error) -> Iterator[None]:
    """Puts file and place before the message of a `UserError`, and refuses the record."""
    try:
        yield
    except UserError as error:
        refuse(UserError(f"{path}, {place}: {error}"))


def named(record: Mapping[str, JsonValue], synonyms: Sequence[str]) -> str | None:
    """The first of the names that the record has with a value other than null, or None."""
    return next((name for name in synonyms if record.get(name) is not None), None)


def strings(value: JsonValue, name: str) -> tuple[str, ...]:
    """Distinct strings in their order, without spaces around them; one string is a list of one, null is none.

    Raises `UserError` for anything else and for a blank string.
    """
    return tuple(dict.fromkeys(every_string(value, name)))


def every_string(value: JsonValue, name: str) -> list[str]:
    """The same, each as often as it stands there."""
    if value is None:
        return []
    listed = value if isinstance(value, list) else [value]
    found: list[str] = []
    for position, one in enumerate(listed):
        if not isinstance(one, str) or not one.strip():
            kind = "blank" if isinstance(one, str) else kind_of(one)
            where = f"entry {position} of {name!r}" if isinstance(value, list) else repr(name)
            raise UserError(f"{where} is {kind}; expected a string that is not blank, or a list of such strings")
        found.append(one.strip())
    return found


def objects(record: Mapping[str, JsonValue], name: str) -> list[JsonObject]:
    """A list of objects. Raises `UserError` for anything else and for a missing one."""
    value = record.get(name)
    if not isinstance(value, list):
        found = kind_of(value) if name in record else "missing"
        raise UserError(f"{name!r} is {found}; expected a list of objects")
    records: list[JsonObject] = []
    for position, one in enumerate(value):
        if not isinstance(one, dict):
            raise UserError(f"entry {position} of {name!r} is {kind_of(one)}; expected an object")
        records.append(one)
    return records
