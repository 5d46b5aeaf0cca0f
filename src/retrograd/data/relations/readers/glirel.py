"""Read GLiREL's training data (Boylan et al. 2025): one object a line, or a JSON list of them.

    {"tokenized_text": ["Ada", "lives", "in", "Ulm"], "ner": [[0, 0, "PERSON", "Ada"], [3, 3, "CITY", "Ulm"]],
     "relations": [{"head": {"mention": "Ada", "position": [0, 0], "type": "PERSON"}, "tail": {…},
                    "relation_text": "residence"}]}

Positions count tokens, and the end is the last token itself. Types are those of ``ner``, or else the ``type`` of an
argument. A pair without a relation is no instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

from retrograd.data.record_fields import find_id, name_type, read_tokens, require_fields
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import (
    AnnotatedText,
    Mention,
    locate_last_token,
    read_annotated_texts,
    read_integers,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_glirel", "read_glirel"]


def holds_glirel(beginning: FileBeginning) -> bool:
    """Return whether the first record has a tokenised text and relations."""
    return beginning.has("tokenized_text", "relations")


def read_glirel(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return an instance for each relation of a file in this format; malformed ones are refused, with their place."""
    return read_annotated_texts(path, read_text_records(path, refuse), _read_text, refuse)


def _read_text(record: JsonObject, number: int) -> AnnotatedText:
    require_fields(record, ("tokenized_text", "relations"))
    tokens = read_tokens(record, "tokenized_text")
    types: dict[tuple[int, int], str] = {}
    for entity in read_list(record, "ner"):
        first, last = read_integers(entity, 2, "an entity of 'ner'", "[start, end, type, text], the end inclusive")
        kind = entity[2] if isinstance(entity, list) and len(entity) > 2 else ""
        types.setdefault((first, last), kind if isinstance(kind, str) else "")
    return AnnotatedText(
        find_id(record, number, ("id", "doc_id")),
        (
            (f"relation {count}", partial(_read_relation, tokens, types, relation))
            for count, relation in enumerate(read_list(record, "relations"), start=1)
        ),
    )


def _read_relation(
    tokens: list[str], types: Mapping[tuple[int, int], str], value: JsonValue, id_: str
) -> RelationInstance:
    if not isinstance(value, dict):
        raise UserError(f'it is {name_type(value)}; expected {{"head": {{…}}, "tail": {{…}}, "relation_text": …}}')
    require_fields(value, ("head", "tail", "relation_text"))
    head, tail = (_read_argument(value[name], name, tokens, types) for name in ("head", "tail"))
    relation = read_label(value["relation_text"], "'relation_text'")
    return RelationInstance(id_, " ".join(tokens), head.span, tail.span, relation, head.kind, tail.kind)


def _read_argument(value: JsonValue, name: str, tokens: list[str], types: Mapping[tuple[int, int], str]) -> Mention:
    if not isinstance(value, dict) or "position" not in value:
        kind = name_type(value) if not isinstance(value, dict) else "without 'position'"
        raise UserError(f'{name!r} is {kind}; expected {{"mention": …, "position": [start, end]}}, the end inclusive')
    first, last = read_integers(value["position"], 2, f"{name}.position", "two whole numbers, the end inclusive")
    kind = types.get((first, last)) or value.get("type")
    return Mention(locate_last_token(tokens, first, last, name), kind if isinstance(kind, str) else "")
