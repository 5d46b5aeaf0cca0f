"""Read tables and other containers of records with the fields of ``jsonl`` or ``markers``.

CSV with a header, Parquet, Arrow, a saved dataset, a JSON list, columns by name, JSON Lines: `retrograd.data.rows`.
Further columns are not used. In a table of text ``head`` and ``tail`` are words, which stand in ``text`` exactly once,
or offsets such as ``[2, 7]``; or both are marked in ``text``. Where records name these fields otherwise, a map says so
(`retrograd.data.field_maps.RelationFields`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from retrograd.data.field_maps import RelationFields, map_records
from retrograd.data.offsets import Offsets
from retrograd.data.record_fields import Records, read_records
from retrograd.data.relations.beginnings import RECORD_FIELDS, FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.jsonl import has_spans, read_instance
from retrograd.data.relations.readers.markers import is_marked, read_marked_instance
from retrograd.data.rows import read_rows
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_rows", "read_mapped_records", "read_rows_of_relations"]

_PAIR = re.compile(r"[\[(] *([0-9]{1,12}) *, *([0-9]{1,12}) *[\])]")
_NUMBER = re.compile(r" *[0-9]{1,12} *")


def holds_rows(beginning: FileBeginning) -> bool:
    """Return whether the first record of a container has the fields of ``jsonl`` or ``markers``."""
    text = beginning.row.get("text")
    return has_spans(beginning.row) or (isinstance(text, str) and is_marked(text))


def read_rows_of_relations(
    path: Path,
    refuse: Refuse = raise_error,
    offsets: Offsets = "characters",
    fields: RelationFields = RelationFields(),  # noqa: B008 (a value, which nothing changes)
) -> Iterator[RelationInstance]:
    """Return the instances of any container; malformed records are refused, with their place."""
    names = (*RECORD_FIELDS, *fields.paths.values())
    return read_mapped_records(path, read_rows(path, names, refuse), refuse, offsets, fields)


def read_mapped_records(
    path: Path, records: Records, refuse: Refuse, offsets: Offsets, fields: RelationFields
) -> Iterator[RelationInstance]:
    """Return the instances of records that have their fields where ``fields`` says."""

    def read(record: JsonObject, number: int) -> RelationInstance:
        record = {name: value for name, value in record.items() if name != "id" or value is not None}
        text = record.get("text")
        if has_spans(record) or not isinstance(text, str):
            if "label" in record:
                record = {"relation": record["label"], **{name: record[name] for name in record if name != "label"}}
            entities = {name: _read_numbers(record[name], text) for name in ("head", "tail") if name in record}
            return read_instance({**record, **entities}, number, offsets, permits_more=True)
        if "label" in record and "relation" in record:
            record = {name: value for name, value in record.items() if name != "label"}
        return read_marked_instance(record, number)

    return read_records(path, map_records(path, records, fields, refuse) if fields.paths else records, read, refuse)


def _read_numbers(entity: JsonValue, text: JsonValue) -> JsonValue:
    """Return the offsets of an entity as numbers, where a table of text has them as words; anything else as it is."""
    if isinstance(entity, str) and not (isinstance(text, str) and entity in text):
        pair = _PAIR.fullmatch(entity.strip())
        return entity if pair is None else [int(number) for number in pair.groups()]
    if isinstance(entity, list) and len(entity) == 2:
        return [int(part) if isinstance(part, str) and _NUMBER.fullmatch(part) else part for part in entity]
    return entity
