"""Read Prodigy's annotations of relations (``rel.manual``): one text a line.

    {"text": "Ada lives in Ulm.", "answer": "accept", "spans": [{"start": 0, "end": 3, "label": "PER"}, …],
     "relations": [{"label": "lives in", "head_span": {"start": 0, "end": 3, "label": "PER"}, "child_span": {…}}]}

Offsets count characters (or other units: `retrograd.data.offsets`), the end exclusive. ``head_span`` is the head,
``child_span`` the tail. The text of an instance is the whole text. Texts whose ``answer`` is "reject" or "ignore" are
left out; a pair without a relation is no instance.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

from retrograd.data.offsets import Offsets
from retrograd.data.record_fields import name_type, read_string, require_fields
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.annotation_tools import make_instance, read_mention, text_id
from retrograd.data.relations.readers.documents import (
    AnnotatedText,
    read_annotated_texts,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_prodigy", "read_prodigy"]

_SPANS = ("head_span", "child_span")


def holds_prodigy(beginning: FileBeginning) -> bool:
    """Return whether the first record has a text, spans and relations."""
    return beginning.has("text", "spans", "relations")


def read_prodigy(
    path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters"
) -> Iterator[RelationInstance]:
    """Return an instance for each relation of accepted texts; malformed ones are refused, with their place."""

    def read(record: JsonObject, number: int) -> AnnotatedText | None:
        return _read_text(record, number, offsets)

    return read_annotated_texts(path, read_text_records(path, refuse), read, refuse)


def _read_text(record: JsonObject, number: int, offsets: Offsets) -> AnnotatedText | None:
    if record.get("answer", "accept") != "accept":
        return None
    require_fields(record, ("text", "relations"))
    text = read_string(record, "text")
    return AnnotatedText(
        text_id(record.get("id"), number),
        (
            (f"relation {count}", partial(_read_relation, text, relation, offsets))
            for count, relation in enumerate(read_list(record, "relations"), start=1)
        ),
    )


def _read_relation(text: str, value: JsonValue, offsets: Offsets, id_: str) -> RelationInstance:
    if not isinstance(value, dict):
        raise UserError(f'it is {name_type(value)}; expected {{"head_span": {{…}}, "child_span": {{…}}, "label": …}}')
    require_fields(value, (*_SPANS, "label"))
    mentions = []
    for name in _SPANS:
        span = value[name]
        if not isinstance(span, dict):
            raise UserError(f'{name!r} is {name_type(span)}; expected {{"start": 0, "end": 3, "label": "PER"}}')
        mentions.append(read_mention(span, text, offsets, name))
    return make_instance(text, mentions[0], mentions[1], read_label(value["label"], "'label'"), id_)
