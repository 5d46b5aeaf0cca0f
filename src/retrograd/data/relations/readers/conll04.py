"""Read CoNLL04 as SpERT has it (Eberts & Ulges 2020), and SciERC and ADE in the same form: a JSON list of sentences.

    [{"orig_id": 7, "tokens": ["Ada", "lives", "in", "Ulm"], "entities": [{"type": "Peop", "start": 0, "end": 1}, …],
      "relations": [{"type": "Live_In", "head": 0, "tail": 1}]}, …]

``start`` and ``end`` are positions of tokens, the end exclusive; ``head`` and ``tail`` are places in the list of
entities, from 0. A pair without a relation is no instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from retrograd.data.record_fields import (
    find_id,
    locate_tokens,
    name_type,
    read_objects,
    read_optional_string,
    read_tokens,
    read_whole_number,
    require_fields,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
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

__all__ = ["holds_conll04", "read_conll04"]


def holds_conll04(beginning: FileBeginning) -> bool:
    """Return whether the first record has tokens, entities and relations."""
    return beginning.has("tokens", "entities", "relations")


def read_conll04(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return an instance for each relation of a file in this format; malformed ones are refused, with their place."""
    return read_annotated_texts(path, read_text_records(path, refuse), _read_sentence, refuse)


def _read_sentence(record: JsonObject, number: int) -> AnnotatedText:
    require_fields(record, ("tokens", "entities", "relations"))
    tokens = read_tokens(record, "tokens")
    entities = [_read_entity(entity, place, tokens) for place, entity in enumerate(read_objects(record, "entities"))]
    return AnnotatedText(
        find_id(record, number, ("id", "orig_id")),
        (
            (f"relation {count}", partial(_read_relation, " ".join(tokens), entities, relation))
            for count, relation in enumerate(read_list(record, "relations"), start=1)
        ),
    )


def _read_entity(entity: JsonObject, place: int, tokens: Sequence[str]) -> Mention:
    require_fields(entity, ("start", "end"))
    pair = read_whole_number(entity, "start"), read_whole_number(entity, "end")
    return Mention(locate_tokens(tokens, pair, f"entity {place}"), read_optional_string(entity, "type") or "")


def _read_relation(text: str, entities: Sequence[Mention], value: JsonValue, id_: str) -> RelationInstance:
    if not isinstance(value, dict):
        raise UserError(f'it is {name_type(value)}; expected {{"type": …, "head": 0, "tail": 1}}')
    require_fields(value, ("type", "head", "tail"))
    places = [read_whole_number(value, name) for name in ("head", "tail")]
    for name, place in zip(("head", "tail"), places, strict=True):
        if not 0 <= place < len(entities):
            raise UserError(f"{name!r} is {place}; expected the place of one of {len(entities)} entities, from 0")
    head, tail = (entities[place] for place in places)
    return RelationInstance(
        id_, text, head.span, tail.span, read_label(value["type"], "its type"), head.kind, tail.kind
    )
