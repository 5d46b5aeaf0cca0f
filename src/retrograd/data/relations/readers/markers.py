"""Read marked text from JSON Lines: ``{"text": "<< X >> inhibits [[ Y ]].", "label": "INHIBITOR"}``.

``<< >>`` is the head and ``[[ ]]`` the tail, or ``<e1></e1>`` and ``<e2></e2>``; the relation is ``label`` or
``relation``. ``id``, ``head_type``, ``tail_type`` and ``metadata`` (ignored) are optional.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from retrograd.data.record_fields import (
    number_records,
    read_id,
    read_optional_string,
    read_records,
    read_string,
    refuse_unknown,
    require_fields,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_markers", "is_marked", "parse_markers", "read_known_instance", "read_marked_instance", "read_markers"]

_MARKER_FIELDS = ("text", "label", "id", "relation", "head_type", "tail_type", "metadata")
_OPENING_MARKS = ("<e1>", "<e2>", "<<", "[[")


def holds_markers(beginning: FileBeginning) -> bool:
    """Return whether the first line is a record with marked text, or with nothing that such records lack."""
    text = beginning.record.get("text")
    if not beginning.is_lines or not isinstance(text, str):
        return False
    return is_marked(text) or set(beginning.record) <= set(_MARKER_FIELDS)


def is_marked(text: str) -> bool:
    """Return whether a text holds an opening mark of an entity."""
    return any(mark in text for mark in _OPENING_MARKS)


def parse_markers(text: str, id: str, relation: str | None) -> RelationInstance:  # noqa: A002 (the record's field)
    """Return the instance of a marked text: ``<e1>head</e1> … <e2>tail</e2>`` or ``<< head >> … [[ tail ]]``.

    Either entity may come first. The marks are removed, with one space inside each; offsets count in what remains.
    Raises `UserError` for a mark that is missing, unbalanced or repeated, and for what `RelationInstance` refuses.
    """
    if not is_marked(text):
        raise UserError(
            f"no entity is marked in {_shorten(text)}; mark both, as in <e1>head</e1> … <e2>tail</e2> or << head >> … "
            f"[[ tail ]]"
        )
    strict = "<e1>" in text or "<e2>" in text
    pairs = (("<e1>", "</e1>"), ("<e2>", "</e2>")) if strict else (("<<", ">>"), ("[[", "]]"))
    head, tail = (_find_marks(text, *pair, strict=strict) for pair in pairs)
    # (position in the marked text, length) of what is cut, in order.
    cuts = sorted(head + tail)
    for (position, length), (following, _) in itertools.pairwise(cuts):
        if position + length > following:
            raise UserError(f"entity marks touch inside {_shorten(text)}; put words between them")
    pieces: list[str] = []
    end = removed = 0
    new_positions: dict[int, int] = {}
    for position, length in cuts:
        pieces.append(text[end:position])
        new_positions[position] = position - removed
        removed += length
        end = position + length
    bare = "".join([*pieces, text[end:]])
    spans = [Span(new_positions[opening[0]], new_positions[closing[0]]) for opening, closing in (head, tail)]
    return RelationInstance(id, bare, spans[0], spans[1], relation)


def _find_marks(text: str, opening: str, closing: str, *, strict: bool) -> list[tuple[int, int]]:
    """Return (position, length) of the opening and of the closing mark."""
    # Chemical names hold a literal "[[" and orders of potency a literal ">>" (39 of the 10,065 ChemProt sentences);
    # the marks there have a space inside, the literals have none, so the spaced form goes first.
    spaced = f"{opening} " in text
    opener = f"{opening} " if spaced else opening
    closer = f" {closing}" if spaced else closing
    count = text.count(opener)
    if count != 1:
        marks = "no mark" if count == 0 else f"{count} marks"
        raise UserError(
            f"{marks} {opening!r} in {_shorten(text)}; expected exactly one entity written {opening}entity{closing}"
        )
    start = text.index(opener)
    end = text.find(closer, start + len(opener))
    if end < 0:
        raise UserError(f"mark {opening!r} is never closed in {_shorten(text)}; write {closer!r} after the entity")
    if strict and text.count(closing) != 1:
        raise UserError(f"{text.count(closing)} marks {closing!r} in {_shorten(text)}; keep the one after the entity")
    return [(start, len(opener)), (end, len(closer))]


def _shorten(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")


def read_markers(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of JSON Lines with marked text and the relation in ``label`` (or ``relation``).

    Refuses the others, with file and line.
    """
    records = number_records("line", text_files.read_jsonl(path, refuse))
    return read_records(path, records, read_known_instance, refuse)


def read_known_instance(record: JsonObject, number: int) -> RelationInstance:
    """Return the instance of a record as `read_marked_instance` does, but refuse fields that are not known."""
    refuse_unknown(record, _MARKER_FIELDS)
    return read_marked_instance(record, number)


def read_marked_instance(record: JsonObject, number: int) -> RelationInstance:
    """Return the instance of a record with marked text, whatever further fields it has.

    Raises `UserError` for a malformed one.
    """
    require_fields(record, ("text",))
    if "label" in record and "relation" in record:
        raise UserError("both 'label' and 'relation' are given; keep one")
    relation = read_optional_string(record, "label" if "label" in record else "relation")
    instance = parse_markers(read_string(record, "text"), read_id(record, number), relation)
    types = [read_optional_string(record, name) or "" for name in ("head_type", "tail_type")]
    return replace(instance, head_type=types[0], tail_type=types[1])
