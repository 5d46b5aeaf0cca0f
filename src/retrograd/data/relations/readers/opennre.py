"""Read OpenNRE's files (Han et al. 2019), as Wiki80, NYT10 and Wiki20m have them: one object a line.

    {"token": ["Ada", "wrote", "it"], "h": {"name": "ada", "id": "Q1", "pos": [0, 1]}, "t": {…}, "relation": "wrote"}
    {"text": "Ada wrote it", "h": {"pos": [0, 3]}, "t": {"pos": [10, 12]}, "relation": "wrote"}

``h`` is the head, ``t`` the tail. ``pos`` counts tokens with ``token`` (or ``tokens``), and characters (or other units:
`retrograd.data.offsets`) with ``text``; its end is exclusive. Names and other fields are not used.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrograd.data.offsets import Offsets, read_offsets
from retrograd.data.record_fields import (
    find_field,
    locate_tokens,
    missing_field,
    name_type,
    read_id,
    read_number_pair,
    read_optional_string,
    read_records,
    read_string,
    read_tokens,
    require_fields,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import read_text_records
from retrograd.types import Span, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_opennre", "read_opennre"]

_TOKENS = ("token", "tokens")


def holds_opennre(beginning: FileBeginning) -> bool:
    """Return whether the first record has the entities ``h`` and ``t``, which are objects."""
    return all(isinstance(beginning.record.get(name), dict) for name in ("h", "t"))


def read_opennre(
    path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters"
) -> Iterator[RelationInstance]:
    """Return the instances of a file in OpenNRE's format; malformed ones are refused, with file and line."""

    def read(record: JsonObject, number: int) -> RelationInstance:
        return _read_instance(record, number, offsets)

    return read_records(path, read_text_records(path, refuse), read, refuse)


def _read_instance(record: JsonObject, number: int, offsets: Offsets) -> RelationInstance:
    require_fields(record, ("h", "t"))
    name = find_field(record, _TOKENS)
    if name is None and "text" not in record:
        raise missing_field(record, "token")
    tokens = None if name is None else read_tokens(record, name)
    text = read_string(record, "text") if tokens is None else " ".join(tokens)
    head, tail = (_read_entity(record, entity, text, tokens, offsets) for entity in ("h", "t"))
    relation = read_optional_string(record, "relation")
    return RelationInstance(read_id(record, number), text, head, tail, relation)


def _read_entity(record: JsonObject, name: str, text: str, tokens: list[str] | None, offsets: Offsets) -> Span:
    entity = record[name]
    if not isinstance(entity, dict) or "pos" not in entity:
        kind = name_type(entity) if not isinstance(entity, dict) else "without 'pos'"
        raise UserError(f'{name!r} is {kind}; expected {{"name": …, "pos": [start, end]}}, the end exclusive')
    pair = read_number_pair({f"{name}.pos": entity["pos"]}, f"{name}.pos")
    return read_offsets(text, pair, offsets, name) if tokens is None else locate_tokens(tokens, pair, name)
