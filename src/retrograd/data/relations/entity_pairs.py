"""Readers of text with recognised entities (JSON Lines), which becomes one instance for each pair of entities.

    {"id": "a", "text": "Ada wrote to Bab.", "entities": [{"start": 0, "end": 3, "type": "PERSON"}, …]}

``start`` and ``end`` are characters, the end exclusive (or other units: `retrograd.data.offsets`); ``id`` and ``type``
are optional. Equal spans are one entity, the first of them; a pair that overlaps in part is left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from retrograd.data.offsets import Offsets, read_offsets
from retrograd.data.record_fields import (
    read_id,
    read_optional_string,
    read_string,
    read_whole_number,
    refuse_unknown,
    require_fields,
    require_new,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance, check_span
from retrograd.types import Span, UserError
from retrograd.util.guards import JsonObject, JsonValue, peek_json_object
from retrograd.util.text_files import read_jsonl

__all__ = ["has_entities", "read_entity_pairs"]


def has_entities(path: Path) -> bool:
    """Return whether the first line that is not blank is a record with "entities", and no relations of them.

    Raises `UserError` for a file that is missing, empty or damaged.
    """
    record = peek_json_object(FileBeginning.of(path).line) or {}
    return "entities" in record and "relations" not in record


def read_entity_pairs(
    path: Path, both_orders: bool, max_entities: int = 20, offsets: Offsets = "characters"
) -> Iterator[RelationInstance]:
    """Yield every pair of a line's entities as an instance without a relation.

    Its id is that of the line with the places of head and tail in the list, from 0: ``a:0-2``. ``both_orders`` makes
    each of a pair the head once; otherwise it is the one that stands first in the text. ``offsets`` is what ``start``
    and ``end`` count. Raises `UserError` with file and line for what is wrong, and for more than ``max_entities``
    entities in a line, whose pairs would explode.
    """
    first_places: dict[str, str] = {}
    for number, record in read_jsonl(path):
        try:
            id_ = read_id(record, number)
            require_new(id_, f"line {number}", first_places)
            yield from _read_pairs(record, id_, both_orders, max_entities, offsets)
        except UserError as error:
            raise UserError(f"{path}, line {number}: {error}") from None


def _read_pairs(
    record: JsonObject, id_: str, both_orders: bool, max_entities: int, offsets: Offsets
) -> Iterator[RelationInstance]:
    refuse_unknown(record, ("id", "text", "entities", "metadata"))
    require_fields(record, ("text", "entities"))
    text, values = read_string(record, "text"), record["entities"]
    if not isinstance(values, list):
        raise UserError('"entities" is not a list; expected [{"start": 0, "end": 3, "type": "PERSON"}, …]')
    entities: dict[Span, tuple[int, str]] = {}
    for place, value in enumerate(values):
        span, kind = _read_entity(value, place, text, offsets)
        entities.setdefault(span, (place, kind))
    if len(entities) > max_entities:
        raise UserError(
            f"{len(entities)} entities make too many pairs; split the text into sentences of {max_entities} at most"
        )
    ordered = sorted(entities, key=lambda span: (span.start, span.end))
    for first, second in itertools.combinations(ordered, 2):
        if first.start < second.start < first.end < second.end:
            continue
        for head, tail in ((first, second), (second, first)) if both_orders else ((first, second),):
            (i, head_type), (j, tail_type) = entities[head], entities[tail]
            yield RelationInstance(f"{id_}:{i}-{j}", text, head, tail, None, head_type, tail_type)


def _read_entity(value: JsonValue, place: int, text: str, offsets: Offsets) -> tuple[Span, str]:
    if not isinstance(value, dict):
        raise UserError(f'entity {place} is {value!r}; expected {{"start": 0, "end": 3, "type": "PERSON"}}')
    refuse_unknown(value, ("start", "end", "type"))
    require_fields(value, ("start", "end"))
    pair = read_whole_number(value, "start"), read_whole_number(value, "end")
    span = read_offsets(text, pair, offsets, f"entity {place}")
    check_span(span, f"entity {place}", text)
    return span, read_optional_string(value, "type") or ""
