"""The formats of relation instances: `RELATION_FILE_FORMATS`, each with a reader in a module of its own.

A reader yields `RelationInstance`, passes malformed records to ``refuse`` with file, place and remedy, and reads on.
A new format is a module in `retrograd.data.relations.readers`, a line in the tuple, and a name in `RelationFormat`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.field_maps import RelationFields
from retrograd.data.offsets import Offsets, known_offsets
from retrograd.data.record_fields import number_records, read_records, require_known
from retrograd.data.relations.beginnings import RECORD_FIELDS, FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.proposals import SAMPLE, propose_map
from retrograd.data.relations.readers import (
    brat,
    conll04,
    doccano,
    docred,
    dygie,
    fewrel,
    glirel,
    jsonl,
    label_studio,
    markers,
    opennre,
    prodigy,
    rows,
    semeval,
    tacred,
)
from retrograd.data.relations.readers.docbin import holds_docbin, read_docbin
from retrograd.data.rows import first_rows, read_rows
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "FORMATS",
    "RELATION_FILE_FORMATS",
    "RelationFileFormat",
    "RelationFormat",
    "detect_format",
    "read_relations",
    "relation_instances",
    "states_offsets",
]

RelationFormat = Literal[
    "auto",
    "semeval",
    "jsonl",
    "markers",
    "tacred",
    "tacred_exclusive",
    "opennre",
    "fewrel",
    "dygie",
    "conll04",
    "docred",
    "glirel",
    "brat",
    "label_studio",
    "prodigy",
    "doccano",
    "docbin",
    "rows",
]
"""The values of ``data.format``: "auto", and the names in `RELATION_FILE_FORMATS`."""

FORMATS: tuple[RelationFormat, ...] = get_args(RelationFormat)

_Read = Callable[[Path, Refuse, Offsets], Iterator[RelationInstance]]
_NOTHING_MAPPED = RelationFields()


@dataclass(frozen=True)
class RelationFileFormat:
    """A format of files: its name, whether a file seems to be of it, judged by its beginning, and its reader.

    ``has_offsets`` says whether it states entities by offsets in texts, which count what the setting ``offsets`` says.
    """

    name: str
    holds: Callable[[FileBeginning], bool]
    read: _Read
    has_offsets: bool = False


def _without_offsets(read: Callable[[Path, Refuse], Iterator[RelationInstance]]) -> _Read:
    """Return a reader of files that have no offsets in texts, or whose unit is fixed."""
    return lambda path, refuse, _: read(path, refuse)


RELATION_FILE_FORMATS: tuple[RelationFileFormat, ...] = (
    RelationFileFormat("docbin", holds_docbin, _without_offsets(read_docbin)),
    RelationFileFormat("brat", brat.holds_brat, _without_offsets(brat.read_brat)),
    RelationFileFormat("semeval", semeval.holds_semeval, _without_offsets(semeval.read_semeval)),
    RelationFileFormat("fewrel", fewrel.holds_fewrel, _without_offsets(fewrel.read_fewrel)),
    RelationFileFormat(
        "tacred_exclusive", tacred.holds_tacred_exclusive, _without_offsets(tacred.read_tacred_exclusive)
    ),
    RelationFileFormat("tacred", tacred.holds_tacred, _without_offsets(tacred.read_tacred)),
    RelationFileFormat("docred", docred.holds_docred, _without_offsets(docred.read_docred)),
    RelationFileFormat("glirel", glirel.holds_glirel, _without_offsets(glirel.read_glirel)),
    RelationFileFormat("opennre", opennre.holds_opennre, opennre.read_opennre, has_offsets=True),
    RelationFileFormat(
        "label_studio", label_studio.holds_label_studio, label_studio.read_label_studio, has_offsets=True
    ),
    RelationFileFormat("prodigy", prodigy.holds_prodigy, prodigy.read_prodigy, has_offsets=True),
    RelationFileFormat("doccano", doccano.holds_doccano, doccano.read_doccano, has_offsets=True),
    RelationFileFormat("conll04", conll04.holds_conll04, _without_offsets(conll04.read_conll04)),
    RelationFileFormat("dygie", dygie.holds_dygie, _without_offsets(dygie.read_dygie)),
    RelationFileFormat("jsonl", jsonl.holds_jsonl, jsonl.read_jsonl, has_offsets=True),
    RelationFileFormat("markers", markers.holds_markers, _without_offsets(markers.read_markers)),
    RelationFileFormat("rows", rows.holds_rows, rows.read_rows_of_relations, has_offsets=True),
)
"""All formats, the most specific first: "auto" takes the first that holds."""


def read_relations(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    refuse: Refuse = raise_error,
    offsets: str = "characters",
    fields: RelationFields = _NOTHING_MAPPED,
) -> Iterator[RelationInstance]:
    """Return the instances of a file, or of a folder, in one of `FORMATS`; ``auto`` looks at its beginning.

    ``offsets`` is what those in texts count. With ``fields``, which say where records have what, the file is read as
    ``rows``. Malformed records go to ``refuse``. Raises `UserError` for an unknown format or unit, for a file of which
    nothing can be read, and for ``fields`` of a format whose fields are fixed.
    """
    require_known(format, FORMATS, "relation format")
    unit = known_offsets(offsets)
    if not fields.paths:
        return _find_format(path, format).read(path, refuse, unit)
    if format not in _MAPPED:
        raise UserError(
            f"{path}: the format {format!r} has no fields to be mapped; leave data.fields out, or set data.format to "
            f"one of {', '.join(_MAPPED)}"
        )
    return rows.read_rows_of_relations(path, refuse, unit, fields)


def relation_instances(
    records: Iterable[JsonObject], offsets: str = "characters", fields: RelationFields = _NOTHING_MAPPED
) -> Iterator[RelationInstance]:
    """Return the instances of records with the fields of the format ``jsonl`` or ``markers``, or where ``fields`` says.

    ``offsets`` is what those of ``jsonl`` count. Raises `UserError`, with the number of the record (from 1), for a
    malformed one and a repeated id.
    """
    unit = known_offsets(offsets)
    numbered = number_records("record", enumerate(records, start=1))
    if fields.paths:
        return rows.read_mapped_records(Path("the records"), numbered, raise_error, unit, fields)

    def read(record: JsonObject, number: int) -> RelationInstance:
        plain = jsonl.has_spans(record) or "head" in record
        return jsonl.read_instance(record, number, unit) if plain else markers.read_known_instance(record, number)

    return read_records(Path("the records"), numbered, read, raise_error)


def states_offsets(path: Path, format: str) -> bool:  # noqa: A002 (the field's word)
    """Return whether a file in one of `FORMATS` states its entities by offsets in texts. Raises as `read_relations`."""
    return _find_format(path, format).has_offsets


def detect_format(path: Path) -> str:
    """Return the format of a file or folder, judged by its beginning.

    Raises `UserError` where none fits, with a map of its fields where one can be seen.
    """
    beginning = FileBeginning.of(path)
    for known in RELATION_FILE_FORMATS:
        if known.holds(beginning):
            return known.name
    if not beginning.row and (beginning.is_list or beginning.line.lstrip().startswith("{")):
        next(iter(read_rows(path, RECORD_FIELDS)), None)  # which names the place that is no JSON
    raise UserError(_describe_misfit(beginning))


def _find_format(path: Path, name: str) -> RelationFileFormat:
    detected = detect_format(path) if name == "auto" else name
    return next(known for known in RELATION_FILE_FORMATS if known.name == detected)


def _describe_misfit(beginning: FileBeginning) -> str:
    """Return why no format fits a file, and what to do."""
    named = f"name the format: {', '.join(FORMATS[1:])}"
    if not beginning.row:
        what = "a folder" if beginning.is_folder else "neither text of SemEval (number, tab, sentence) nor records"
        return f"{beginning.path}: {what}, and no format of relations is recognised; {named}"
    remedy = "; ".join(
        propose_map(first_rows(beginning.path, count=SAMPLE))
        or [*_name_lists(beginning.row), f'say where they have what: data.fields.text = "…", or {named}']
    )
    return f"{beginning.path}: no format of relations has records with {', '.join(beginning.row)}; {remedy}"


def _name_lists(row: JsonObject) -> list[str]:
    """Return what to do with the first field that is a list of objects, each perhaps a relation."""
    names = [name for name, value in row.items() if isinstance(value, list) and value and isinstance(value[0], dict)]
    return [f"a record has one relation here: write one for each entry of `{name}`" for name in names[:1]]


_MAPPED = ("auto", "rows", "jsonl", "markers")
