"""Read doccano's export of relations, JSONL(relation): one text a line.

    {"id": 1, "text": "Ada lives in Ulm.",
     "entities": [{"id": 4, "label": "PER", "start_offset": 0, "end_offset": 3}, …],
     "relations": [{"id": 1, "from_id": 4, "to_id": 5, "type": "lives in"}]}

Offsets count characters (or other units: `retrograd.data.offsets`), the end exclusive. The head is ``from_id``, the
tail ``to_id``. The text of an instance is the whole text. A pair without a relation is no instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from retrograd.data.offsets import Offsets
from retrograd.data.record_fields import name_type, read_objects, read_string, require_fields
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.annotation_tools import find_entity, make_instance, read_mention, text_id
from retrograd.data.relations.readers.documents import (
    AnnotatedText,
    Mention,
    read_annotated_texts,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_doccano", "read_doccano"]

_OFFSETS = ("start_offset", "end_offset")


def holds_doccano(beginning: FileBeginning) -> bool:
    """Return whether the first record has a text, entities and relations."""
    return beginning.has("text", "entities", "relations")


def read_doccano(
    path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters"
) -> Iterator[RelationInstance]:
    """Return an instance for each relation of an export; malformed ones are refused, with their place."""

    def read(record: JsonObject, number: int) -> AnnotatedText:
        return _read_text(record, number, offsets)

    return read_annotated_texts(path, read_text_records(path, refuse), read, refuse)


def _read_text(record: JsonObject, number: int, offsets: Offsets) -> AnnotatedText:
    require_fields(record, ("text", "entities", "relations"))
    text = read_string(record, "text")
    entities: dict[str, Mention] = {}
    for entity in read_objects(record, "entities"):
        require_fields(entity, ("id", *_OFFSETS))
        name = f"entity {text_id(entity['id'], 0)}"
        entities[text_id(entity["id"], 0)] = read_mention(entity, text, offsets, name, _OFFSETS)
    return AnnotatedText(
        text_id(record.get("id"), number),
        (
            (f"relation {count}", partial(_read_relation, text, entities, relation))
            for count, relation in enumerate(read_list(record, "relations"), start=1)
        ),
    )


def _read_relation(text: str, entities: Mapping[str, Mention], value: JsonValue, id_: str) -> RelationInstance:
    if not isinstance(value, dict):
        raise UserError(f'it is {name_type(value)}; expected {{"from_id": …, "to_id": …, "type": …}}')
    require_fields(value, ("from_id", "to_id", "type"))
    head, tail = (find_entity(entities, value[name], name) for name in ("from_id", "to_id"))
    return make_instance(text, head, tail, read_label(value["type"], "'type'"), id_)
