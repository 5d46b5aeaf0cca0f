"""Text with recognised entities, one JSON object a line, as every pair of them: what a recogniser's output becomes.

    {"id": "a", "text": "Ada wrote to Bab.", "entities": [{"start": 0, "end": 3, "type": "PERSON"}, …]}

``start`` and ``end`` are characters, the end exclusive; ``id`` and ``type`` are optional. Equal spans are one entity;
a pair that overlaps in part is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from retrograd.io import JsonObject, JsonValue, read_jsonl, read_lines
from retrograd.tasks.record_fields import (
    optional_string,
    record_id,
    refuse_unknown,
    require_fields,
    require_new,
    string,
    whole_number,
)
from retrograd.tasks.relation_instance import RelationInstance, Span, check_span
from retrograd.types import UserError

__all__ = ["has_entities", "read_entity_pairs"]


def has_entities(path: Path) -> bool:
    """Whether the first line that is not blank speaks of "entities"."""
    first = next((line for _, line in read_lines(path) if line.strip()), "")
    return first.lstrip().startswith("{") and '"entities"' in first


def read_entity_pairs(path: Path, both_orders: bool, most: int = 20) -> Iterator[RelationInstance]:
    """Every pair of a line's entities as an instance without a relation, its id that of the line with both numbers.

    ``both_orders`` makes each of a pair the head once; otherwise it is the one that stands first. Raises `UserError`
    with file and line for what is wrong, and for more than ``most`` entities in a line, whose pairs would explode.
    """
    seen: dict[str, int] = {}
    for number, record in read_jsonl(path):
        try:
            id_ = record_id(record, number)
            require_new(id_, number, seen)
            yield from _pairs(record, id_, both_orders, most)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None


def _pairs(record: JsonObject, id_: str, both_orders: bool, most: int) -> Iterator[RelationInstance]:
    refuse_unknown(record, ("id", "text", "entities", "metadata"))
    require_fields(record, ("text", "entities"))
    text, listed = string(record, "text"), record["entities"]
    if not isinstance(listed, list):
        raise UserError('"entities" is no list; expected [{"start": 0, "end": 3, "type": "PERSON"}, …]')
    entities = dict(_entity(one, place, text) for place, one in enumerate(listed))
    if len(entities) > most:
        raise UserError(
            f"{len(entities)} entities make too many pairs; split the text into sentences of {most} at most"
        )
    numbered = [(place, span, kind) for place, (span, kind) in enumerate(sorted(entities.items(), key=_order))]
    for (i, head, head_type), (j, tail, tail_type) in itertools.permutations(numbered, 2):
        crossing = head.start < tail.start < head.end < tail.end or tail.start < head.start < tail.end < head.end
        if (i < j or both_orders) and not crossing:
            yield RelationInstance(f"{id_}:{i}-{j}", text, head, tail, None, head_type, tail_type)


def _order(entity: tuple[Span, str]) -> tuple[int, int]:
    return entity[0].start, entity[0].end


def _entity(value: JsonValue, place: int, text: str) -> tuple[Span, str]:
    if not isinstance(value, dict):
        raise UserError(f'entity {place} is {value!r}; expected {{"start": 0, "end": 3, "type": "PERSON"}}')
    refuse_unknown(value, ("start", "end", "type"))
    require_fields(value, ("start", "end"))
    span = Span(whole_number(value, "start"), whole_number(value, "end"))
    check_span(span, f"entity {place}", text)
    return span, optional_string(value, "type") or ""
