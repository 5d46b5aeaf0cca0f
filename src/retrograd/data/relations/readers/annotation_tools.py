"""What the exports of annotation tools share: texts with entities by their ids, and relations from one to another."""

from __future__ import annotations

from collections.abc import Mapping

from retrograd.data.offsets import Offsets, read_offsets
from retrograd.data.record_fields import read_optional_string, read_whole_number, require_fields
from retrograd.data.relations.instance import RelationInstance, check_span
from retrograd.data.relations.readers.documents import Mention
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value

__all__ = ["find_entity", "make_instance", "read_mention", "text_id"]


def text_id(value: JsonValue, number: int) -> str:
    """Return the id of a text, or else the number of its record."""
    return str(value) if isinstance(value, str) or type(value) is int else str(number)


def read_mention(
    value: JsonObject, text: str, offsets: Offsets, name: str, names: tuple[str, str] = ("start", "end")
) -> Mention:
    """Return an entity of a text; ``names`` are the fields of its offsets. Raises `UserError` for one outside of it."""
    require_fields(value, names)
    pair = read_whole_number(value, names[0]), read_whole_number(value, names[1])
    span = read_offsets(text, pair, offsets, name)
    check_span(span, name, text)
    return Mention(span, read_optional_string(value, "label") or "")


def find_entity(entities: Mapping[str, Mention], value: JsonValue, name: str) -> Mention:
    """Return the entity of an id. Raises `UserError` for an unknown one."""
    entity = entities.get(str(value)) if isinstance(value, str) or type(value) is int else None
    if entity is None:
        raise UserError(f"{name!r} is {describe_value(value)}, which is the id of no entity of this text")
    return entity


def make_instance(text: str, head: Mention, tail: Mention, label: str | None, id_: str) -> RelationInstance:
    """Return the instance of two entities of a text."""
    return RelationInstance(id_, text, head.span, tail.span, label, head.kind, tail.kind)
