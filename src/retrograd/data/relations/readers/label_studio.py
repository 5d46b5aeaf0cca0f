"""Read Label Studio's export of texts with labels and relations ("JSON", not "JSON-MIN", which lacks the relations).

    [{"id": 7, "data": {"text": "Ada lives in Ulm."}, "annotations": [{"result": [
        {"id": "a", "type": "labels", "value": {"start": 0, "end": 3, "text": "Ada", "labels": ["PER"]}}, …,
        {"type": "relation", "from_id": "a", "to_id": "b", "direction": "right", "labels": ["lives in"]}]}]}]

Of several annotations of a text the first counts that was not cancelled. The text is ``text`` in ``data``, or else the
only string there. The head is where the relation comes from: ``from_id``, or ``to_id`` where its direction is "left". A
relation with several labels is an instance for each, and one without labels an instance without a relation; a pair that
is not related is none. The text of an instance is the whole text.

Browsers count UTF-16 code units; other tools that write this format count characters. An entity's ``text`` says which.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
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
    ReadRelation,
    read_annotated_texts,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_label_studio", "read_label_studio"]


def holds_label_studio(beginning: FileBeginning) -> bool:
    """Return whether the first record has data and annotations."""
    return isinstance(beginning.record.get("data"), dict) and beginning.has("annotations")


def read_label_studio(
    path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters"
) -> Iterator[RelationInstance]:
    """Return the instances of an export; malformed ones are refused, with their place."""

    def read(record: JsonObject, number: int) -> AnnotatedText | None:
        return _read_task(record, number, offsets)

    return read_annotated_texts(path, read_text_records(path, refuse), read, refuse)


def _read_task(record: JsonObject, number: int, offsets: Offsets) -> AnnotatedText | None:
    require_fields(record, ("data", "annotations"))
    annotations = [one for one in read_objects(record, "annotations") if one.get("was_cancelled") is not True]
    if not annotations:
        return None
    text = _find_text(record)
    results = read_objects(annotations[0], "result")
    entities = {
        text_id(result["id"], 0): _read_entity(result, text, offsets)
        for result in results
        if result.get("type") != "relation" and "id" in result and _is_span(result)
    }
    relations = [result for result in results if result.get("type") == "relation"]
    return AnnotatedText(text_id(record.get("id"), number), _list_relations(text, entities, relations))


def _find_text(record: JsonObject) -> str:
    data = record["data"]
    if not isinstance(data, dict):
        raise UserError(f"'data' is {name_type(data)}; expected an object with the text")
    texts = [name for name, value in data.items() if isinstance(value, str)]
    if "text" not in data and len(texts) != 1:
        raise UserError(f"'data' has {', '.join(data) or 'no fields'}; expected the field 'text', or one string alone")
    return read_string(data, "text" if "text" in data else texts[0])


def _is_span(result: JsonObject) -> bool:
    value = result.get("value")
    return isinstance(value, dict) and "start" in value and "end" in value


def _read_entity(result: JsonObject, text: str, offsets: Offsets) -> Mention:
    """Return an entity, by the unit of offsets in which it has its own words; ``offsets`` where it has none."""
    value = result["value"]
    assert isinstance(value, dict)
    labels = value.get("labels")
    label = labels[0] if isinstance(labels, list) and labels else None
    own = {"start": value["start"], "end": value["end"], "label": label}
    name = f"region {text_id(result['id'], 0)}"
    words = value.get("text")
    if not isinstance(words, str):
        return read_mention(own, text, offsets, name)
    units: tuple[Offsets, ...] = (offsets, "utf-16", "characters")
    for unit in dict.fromkeys(units):
        try:
            mention = read_mention(own, text, unit, name)
        except UserError:
            continue
        if _fold(mention.span.of(text)) == _fold(words):
            return mention
    mention = read_mention(own, text, offsets, name)
    raise UserError(
        f"{name} is {words[:60]!r}, but {mention.span.of(text)[:60]!r} stands at {mention.span} of the text"
    )


def _fold(words: str) -> str:
    return "".join(words.replace("\\n", " ").split())  # line ends are exported as a backslash and an n


def _list_relations(
    text: str, entities: Mapping[str, Mention], relations: Sequence[JsonObject]
) -> Iterator[tuple[str, ReadRelation]]:
    for number, relation in enumerate(relations, start=1):
        labels = relation.get("labels")
        count = len(labels) if isinstance(labels, list) and labels else 1
        for place in range(count):
            name = f"relation {number}" + (f"-{place}" if count > 1 else "")
            yield name, partial(_read_relation, text, entities, relation, place)


def _read_relation(
    text: str, entities: Mapping[str, Mention], relation: JsonObject, place: int, id_: str
) -> RelationInstance:
    require_fields(relation, ("from_id", "to_id"))
    names = ("to_id", "from_id") if relation.get("direction") == "left" else ("from_id", "to_id")
    head, tail = (find_entity(entities, relation[name], name) for name in names)
    labels = read_list(relation, "labels")
    label = read_label(labels[place], "a label of it") if labels else None
    return make_instance(text, head, tail, label, id_)
