"""Propose where records have text, entities and relation, where they name them in another way than is known.

The first records are looked at: the text is the longest string in which two other fields lie, as words or as offsets.
A proposal is a sentence in an error, for a person to judge; nothing is read by it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from retrograd.data.field_maps import RelationFields
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["SAMPLE", "propose_map", "propose_relation_fields"]

SAMPLE = 50
"""How many records a proposal looks at."""

_MARKS = re.compile(r"<e1>.*<e2>|<e2>.*<e1>|<<.*\[\[|\[\[.*<<", re.S)
_HEAD = re.compile(r"head|subj|source|from|first|(^|_)(h|s)($|_)|1$|1_|_a$|kopf", re.I)
_TAIL = re.compile(r"tail|obj|target|dest|to$|second|(^|_)(t|o)($|_)|2$|2_|_b$|child", re.I)
_RELATION = re.compile(r"rel|label|predic|class|(^|_)(r|p)$|tag|type$", re.I)
_START = re.compile(r"start|begin", re.I)
_NUMBER = re.compile(r"[0-9]{1,12}")
_IDENTIFIER = re.compile(r"[A-Za-z_]\w*", re.ASCII)
_OF_TYPES = re.compile(r"type|id$|url|name$", re.I)

_TRIPLE = 3
_NEARLY = 0.9

Columns = Mapping[str, Sequence[JsonValue]]


def propose_map(sample: Sequence[JsonObject]) -> list[str]:
    """Return a sentence that says what looks like what, and the settings for that; nothing where nothing does."""
    paths = {name: path for name, path in propose_relation_fields(sample).paths.items() if path != name}
    if not paths:
        return []
    looks = [f"`{path}` looks like the {name}" for name, path in paths.items()]
    settings = [f'data.fields.{name} = "{path}"' for name, path in paths.items()]
    return [f"{' and '.join(looks)}: set {' and '.join(settings)}"]


def propose_relation_fields(sample: Sequence[JsonObject]) -> RelationFields:
    """Return where records seem to have text (or tokens), head, tail and relation; empty paths where none does."""
    columns = _columns(sample)
    marked = next((path for path, values in columns.items() if _are_marked(values)), "")
    if marked:
        return RelationFields(text=marked, relation=_find_relation(columns, {marked}))
    text, entities = _find_text(columns)
    if not text:
        return RelationFields()
    head, tail = _tell_apart(entities)
    relation = _find_relation(columns, {text, head, tail, *entities})
    is_text = isinstance(columns[text][0], str)
    return RelationFields(
        text=text if is_text else "", tokens="" if is_text else text, head=head, tail=tail, relation=relation
    )


def _find_text(columns: Columns) -> tuple[str, list[str]]:
    """Return the path of the longest text or tokens in which two other fields lie, with the paths of all that do."""
    best: tuple[float, str, list[str]] = (0.0, "", [])
    for path, values in columns.items():
        if not all(isinstance(value, str) or _is_tokens(value) for value in values):
            continue
        entities = [other for other in columns if other != path and _lies_in(columns[other], values)]
        length = sum(len(value) if isinstance(value, str) else len(_join(value)) for value in values)
        if len(entities) > 1 and length > best[0]:
            best = length, path, entities
    return best[1], best[2]


def _are_marked(values: Sequence[JsonValue]) -> bool:
    """Return whether nearly all values are texts with two marked entities."""
    return sum(isinstance(text, str) and _MARKS.search(text) is not None for text in values) >= _NEARLY * len(values)


def _lies_in(entities: Sequence[JsonValue], texts: Sequence[JsonValue]) -> bool:
    """Return whether values are words or spans of the texts or tokens, in nearly all of the records."""
    if len(entities) != len(texts):
        return False
    inside = sum(_is_inside(entity, text) for entity, text in zip(entities, texts, strict=True))
    return inside >= _NEARLY * len(texts)


def _is_inside(entity: JsonValue, text: JsonValue) -> bool:
    if isinstance(entity, str):
        whole = text if isinstance(text, str) else _join(text)
        return 0 < len(entity.strip()) < len(whole) and entity.strip() in whole
    if isinstance(entity, list) and len(entity) == 2 and isinstance(text, str | list):
        start, end = entity
        return type(start) is int and type(end) is int and 0 <= start < end <= len(text)
    return False


def _tell_apart(entities: Sequence[str]) -> tuple[str, str]:
    """Return the paths of head and tail among those of entities, by their names, else in order; spans go first."""
    ordered = sorted(entities, key=lambda path: (not path.startswith("["), bool(_OF_TYPES.search(path))))
    head = next((path for path in ordered if _HEAD.search(path)), "")
    tail = next((path for path in ordered if path != head and _TAIL.search(path)), "")
    rest = [path for path in ordered if path not in (head, tail)]
    head = head or rest.pop(0)
    return head, tail or rest.pop(0)


def _find_relation(columns: Columns, others: set[str]) -> str:
    """Return the path of the string with few distinct values; of several, one whose name sounds like a relation."""
    few: list[str] = []
    for path, values in columns.items():
        labels = [value for value in values if isinstance(value, str) and len(value.split()) <= 6]
        if path in others or len(labels) < len(values):
            continue
        if _RELATION.search(path) or len(set(labels)) <= len(labels) / 2:
            few.append(path)
    rated = sorted(few, key=lambda path: (not _RELATION.search(path), bool(_OF_TYPES.search(path))))
    return rated[0] if rated else ""


# ---- what records have -----------------------------------------------------------------------------------------------


def _columns(sample: Sequence[JsonObject]) -> dict[str, list[JsonValue]]:
    """Return the values of all paths that each record of a sample has, spans of two numbers included."""
    columns: dict[str, list[JsonValue]] = {}
    for record in sample:
        values = dict(_values(record, "", 0))
        for path, value in [*values.items(), *_pairs(values)]:
            columns.setdefault(path, []).append(value)
    return {path: values for path, values in columns.items() if len(values) == len(sample)}


def _values(record: Mapping[str, JsonValue], prefix: str, depth: int) -> Iterator[tuple[str, JsonValue]]:
    for name, value in record.items():
        if not name or ((prefix or isinstance(value, dict)) and not _IDENTIFIER.fullmatch(name)):
            continue  # "" would be no path
        if isinstance(value, dict) and depth < 2:
            yield from _values(value, f"{prefix}{name}.", depth + 1)
        elif value is not None and value not in ("", []):
            yield f"{prefix}{name}", value
            if isinstance(value, list) and len(value) <= _TRIPLE and _IDENTIFIER.fullmatch(name):
                yield from ((f"{prefix}{name}[{place}]", part) for place, part in enumerate(value))


def _pairs(values: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Yield the spans whose start and end are two fields, with a path of JMESPath that makes them one."""
    for path, start in values.items():
        other = _START.sub("end", path)
        if other != path and other in values:
            pair = [_number(value) for value in (start, values[other])]
            if None not in pair:
                yield f"[{path}, {other}]", [*pair]


def _number(value: JsonValue) -> int | None:
    """Return a whole number, which a table of text has as a string; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        return int(value)
    return value if type(value) is int else None


def _is_tokens(value: JsonValue) -> bool:
    return isinstance(value, list) and len(value) > 2 and all(isinstance(token, str) for token in value)


def _join(tokens: JsonValue) -> str:
    return " ".join(str(token) for token in tokens) if isinstance(tokens, list) else ""
