"""Read a passage from a record: by our names, and by those of LlamaIndex, LangChain, Haystack, BEIR and Pyserini.

text   ``text``, ``contents``, ``content``, ``page_content``, ``passage`` or ``body``; or ``text_resource.text``, where
       LlamaIndex writes documents in parts
title  ``title`` or ``name``; else, of ``metadata`` or ``meta``, ``title``, or the last part of the path or address in
       ``file_name``, ``file_path`` or ``source``
id     ``id``, ``id_``, ``_id``, ``pid``, ``docid`` or ``doc_id``; else the number of the record, from 0

A node of LlamaIndex within ``__data__`` and a document of LangChain within ``kwargs``, as their stores and dumps have
them, are read as such. Other fields are not read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from retrograd.data.record_fields import Records, find_field
from retrograd.types import Passage, UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["PASSAGE_NAMES", "expand_stores", "has_text", "read_passage"]

_TEXTS = ("text", "contents", "content", "page_content", "passage", "body")
_TITLES = ("title", "name")
_IDS = ("id", "id_", "_id", "pid", "docid", "doc_id")
_METADATA = ("metadata", "meta")
_PLACES = ("file_name", "file_path", "source")
_STORE, _NODES = "docstore/", "docstore/data"

PASSAGE_NAMES = (*_TEXTS, *_TITLES, *_IDS)
"""The fields that records of passages may have."""


def read_passage(record: Mapping[str, JsonValue], row: int) -> Passage:
    """Return the passage of a record; ``row`` is its id where it has none.

    Raises `UserError` for a missing or blank text, and for a value of another type.
    """
    record = _unwrap(record)
    id_, title = find_field(record, _IDS), find_field(record, _TITLES)
    own = _metadata_title(record) if title is None else _read_string(record, title)
    return Passage(str(row) if id_ is None else _read_id(record, id_), own, _read_text(record))


def has_text(record: JsonObject) -> bool:
    """Return whether a record has the text of a passage, or holds records that may have one."""
    record = _unwrap(record)
    return find_field(record, _TEXTS) is not None or _resource(record) is not None or record.get("id") == _NODES


def expand_stores(records: Records) -> Records:
    """Yield records, and of a ``docstore.json`` of LlamaIndex its nodes: it is an object of three collections, of which
    ``docstore/data`` holds them by id."""
    for place, number, record in records:
        name = record.get("id")
        if not (isinstance(name, str) and name.startswith(_STORE)):
            yield place, number, record
        elif name == _NODES:
            nodes = [node for node in record.values() if isinstance(node, dict)]
            yield from ((f"node {place}", place, node) for place, node in enumerate(nodes, start=1))


def _unwrap(record: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Return what LlamaIndex and LangChain write around a document, without that."""
    inner = record.get("__data__")
    if isinstance(inner, dict):
        return inner
    inner = record.get("kwargs")
    return inner if isinstance(inner, dict) and "lc" in record else dict(record)


def _resource(record: Mapping[str, JsonValue]) -> JsonValue:
    resource = record.get("text_resource")
    return resource.get("text") if isinstance(resource, dict) else None


def _read_text(record: Mapping[str, JsonValue]) -> str:
    name = find_field(record, _TEXTS)
    if name is not None:
        return _read_string(record, name)
    resource = _resource(record)
    if isinstance(resource, str):
        return resource
    empty = next((one for one in _TEXTS if one in record), None)
    if empty is not None:
        raise UserError(f"{empty!r} is empty; expected the text of a passage, or no record")
    raise UserError(f"no text; the record has {', '.join(record) or 'no fields'}, expected one of {', '.join(_TEXTS)}")


def _read_id(record: Mapping[str, JsonValue], name: str) -> str:
    key = record[name]
    if isinstance(key, int) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, str):
        return key
    raise UserError(f"{name!r} is {_shorten(key)}; expected a string or a whole number")


def _metadata_title(record: Mapping[str, JsonValue]) -> str:
    metadata = next((value for name in _METADATA if isinstance(value := record.get(name), dict)), {})
    title = metadata.get("title")
    if isinstance(title, str) and title.strip():
        return title
    places = (value.rstrip("/\\") for name in _PLACES if isinstance(value := metadata.get(name), str))
    return next((place.replace("\\", "/").rpartition("/")[2] for place in places if place.strip()), "")


def _read_string(record: Mapping[str, JsonValue], name: str) -> str:
    value = record[name]
    if not isinstance(value, str):
        raise UserError(f"{name!r} is {_shorten(value)}; expected a string")
    return value


def _shorten(value: JsonValue) -> str:
    return json.dumps(value, default=str)[:60]
