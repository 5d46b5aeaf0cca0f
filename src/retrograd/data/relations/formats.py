"""Readers of relation instances: SemEval-2010 Task 8 files, plain JSON Lines, marker text, and TACRED.

Every reader yields `RelationInstance` lazily, and every error names the file, the line and the remedy.

``semeval``   blocks of ``1<TAB>"… <e1>x</e1> … <e2>y</e2> …"``, a label line, a ``Comment:`` line and a blank line;
              label and comment may be missing, as in the test file handed to the task's participants.
``jsonl``     one object a line, in one of two layouts, both with optional ``relation``, ``id``, ``head_type``,
              ``tail_type`` and ``metadata`` (ignored):
              ``{"text": "A ridge uprises.", "head": [2, 7], "tail": [8, 15]}``, offsets in characters, end exclusive
              (or in other units: `retrograd.data.offsets`);
              ``{"tokens": ["A", "ridge", "uprises"], "head": [1, 2], "tail": [2, 3]}``, positions of tokens, likewise.
``markers``   one object a line, the entities marked in the text and the relation in ``label`` or ``relation``:
              ``{"text": "<< X >> inhibits [[ Y ]].", "label": "INHIBITOR"}``,
              where ``<< >>`` is the head and ``[[ ]]`` the tail, or ``<e1></e1>`` and ``<e2></e2>``.
``tacred``    one JSON list of records with token positions, the end inclusive; see `retrograd.data.relations.tacred`.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Literal, get_args

from retrograd.data.offsets import Offsets, known_offsets, read_offsets
from retrograd.data.record_fields import (
    locate_errors,
    locate_tokens,
    number_records,
    read_id,
    read_number_pair,
    read_optional_string,
    read_records,
    read_string,
    read_tokens,
    refuse_unknown,
    require_fields,
    require_known,
    require_new,
)
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.tacred import read_tacred
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, peek_json_object
from retrograd.util.text_files import Refuse, raise_error

__all__ = [
    "FORMATS",
    "RelationFormat",
    "parse_markers",
    "read_jsonl",
    "read_markers",
    "read_relations",
    "read_semeval",
    "relation_instances",
    "states_offsets",
]

RelationFormat = Literal["auto", "semeval", "jsonl", "markers", "tacred"]
"""The values of ``data.format``: a new one is named here, in `_READERS` and, if "auto" knows it, in `detect_format`."""

FORMATS: tuple[RelationFormat, ...] = get_args(RelationFormat)

_JSON_LIST = re.compile(r"\s*\[\s*([{\]].*)?")
_SENTENCE = re.compile(r"(\d+)\t\s*(\S.*)")
_COMMON_FIELDS = ("id", "relation", "head_type", "tail_type", "metadata")
_TEXT_FIELDS = ("text", "head", "tail", *_COMMON_FIELDS)
_TOKEN_FIELDS = ("tokens", "head", "tail", *_COMMON_FIELDS)
_MARKER_FIELDS = ("text", "label", *_COMMON_FIELDS)


def read_relations(
    path: Path,
    format: str = "auto",  # noqa: A002 (the field's word)
    refuse: Refuse = raise_error,
    offsets: str = "characters",
) -> Iterator[RelationInstance]:
    """Return the instances of a file in one of `FORMATS`; ``auto`` looks at the first line that is not blank.

    ``offsets`` is what those of ``jsonl`` count; the other formats have none in texts. Records that are malformed go to
    ``refuse``. Raises `UserError` for an unknown format or unit, and for a file of which nothing can be read.
    """
    require_known(format, FORMATS, "relation format")
    unit = known_offsets(offsets)
    detected = detect_format(path) if format == "auto" else format
    return _READERS[detected](path, refuse, unit)


def states_offsets(path: Path, format: str) -> bool:  # noqa: A002 (the field's word)
    """Return whether a file in one of `FORMATS` states its entities by offsets in texts. Raises as `read_relations`."""
    return (detect_format(path) if format == "auto" else format) == "jsonl"


def detect_format(path: Path) -> str:
    """Return the format of a file, judged by its first line that is not blank. Raises `UserError` where none fits."""
    number, line = text_files.first_line(path, "relation instances")
    if _SENTENCE.fullmatch(line):
        return "semeval"
    if _JSON_LIST.fullmatch(line):
        return "tacred"
    record = peek_json_object(line)
    if record is not None:
        return "jsonl" if "tokens" in record or "head" in record else "markers"
    raise UserError(
        f"{path}, line {number}: neither a SemEval line (number, tab, sentence) nor a JSON object or list; "
        f"name the format: {', '.join(FORMATS[1:])}"
    )


# SemEval-2010 Task 8 --------------------------------------------------------------------------------------------------


def read_semeval(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Yield the instances of a file in the official SemEval-2010 Task 8 layout, `.gz` included.

    Labels are as written, None where missing. Refuses a line that fits nowhere, a second label, a repeated number and
    wrong entity marks.
    """
    first_places: dict[str, str] = {}
    for number, id_, sentence, relation in _read_semeval_blocks(path, refuse):
        with locate_errors(path, f"line {number}", refuse):
            require_new(id_, f"line {number}", first_places)
            yield parse_markers(sentence, id_, relation)


def _read_semeval_blocks(path: Path, refuse: Refuse) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield (line, id, sentence, label) of every block; a numbered line opens one, blank lines are optional."""
    current: tuple[int, str, str] | None = None
    label: str | None = None
    for number, line in text_files.read_lines(path, refuse):
        stripped = line.strip()
        sentence = _SENTENCE.fullmatch(line)
        if sentence:
            if current:
                yield (*current, label)
            current, label = (number, sentence[1], _unquote(sentence[2].rstrip())), None
        elif not stripped or (current and stripped.startswith("Comment:")):
            continue
        elif current is None or len(stripped.split()) > 1:
            where = f"{path}, line {number}"
            expected = "expected a number, a tab and a sentence, or the label or comment of one"
            refuse(UserError(f"{where}: {expected}; found {stripped[:60]!r}"))
        elif label is not None:
            where = f"{path}, line {number}"
            message = f"a second label {stripped!r} for the sentence of line {current[0]}, already {label!r}"
            refuse(UserError(f"{where}: {message}; keep one"))
        else:
            label = stripped
    if current is None:
        raise UserError(f"{path} holds no sentence; expected lines of a number, a tab and a sentence")
    yield (*current, label)


def _unquote(sentence: str) -> str:
    """Return the sentence without the quotation marks that the format puts around it."""
    if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
        return sentence[1:-1].strip()
    return sentence


# Marker text ----------------------------------------------------------------------------------------------------------


def parse_markers(text: str, id: str, relation: str | None) -> RelationInstance:  # noqa: A002 (the record's field)
    """Return the instance of a marked text: ``<e1>head</e1> … <e2>tail</e2>`` or ``<< head >> … [[ tail ]]``.

    Either entity may come first. The marks are removed, with one space inside each; offsets count in what remains.
    Raises `UserError` for a mark that is missing, unbalanced or repeated, and for what `RelationInstance` refuses.
    """
    if not any(mark in text for mark in ("<e1>", "<e2>", "<<", "[[")):
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
    return read_records(path, records, _read_marked_instance, refuse)


def _read_marked_instance(record: JsonObject, number: int) -> RelationInstance:
    refuse_unknown(record, _MARKER_FIELDS)
    require_fields(record, ("text",))
    if "label" in record and "relation" in record:
        raise UserError("both 'label' and 'relation' are given; keep one")
    relation = read_optional_string(record, "label" if "label" in record else "relation")
    return parse_markers(read_string(record, "text"), read_id(record, number), relation)


# JSON Lines -----------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters") -> Iterator[RelationInstance]:
    """Return the instances of plain JSON Lines in either layout of the module's docstring.

    Refuses the others, with file and line.
    """
    records = number_records("line", text_files.read_jsonl(path, refuse))
    return read_records(path, records, partial(_read_instance, offsets=offsets), refuse)


def relation_instances(records: Iterable[JsonObject], offsets: str = "characters") -> Iterator[RelationInstance]:
    """Return the instances of records with the fields of the format ``jsonl`` or ``markers``.

    ``offsets`` is what those of ``jsonl`` count. Raises `UserError`, with the number of the record (from 1), for a
    malformed one and a repeated id.
    """

    unit = known_offsets(offsets)

    def read(record: JsonObject, number: int) -> RelationInstance:
        plain = "tokens" in record or "head" in record
        return _read_instance(record, number, unit) if plain else _read_marked_instance(record, number)

    numbered = number_records("record", enumerate(records, start=1))
    return read_records(Path("the records"), numbered, read, raise_error)


def _read_instance(record: JsonObject, number: int, offsets: Offsets) -> RelationInstance:
    if "tokens" in record:
        refuse_unknown(record, _TOKEN_FIELDS)
        require_fields(record, _TOKEN_FIELDS[:3])
        tokens = read_tokens(record, "tokens")
        text = " ".join(tokens)
        head, tail = (locate_tokens(tokens, read_number_pair(record, name), name) for name in ("head", "tail"))
    else:
        refuse_unknown(record, _TEXT_FIELDS)
        require_fields(record, _TEXT_FIELDS[:3])
        text = read_string(record, "text")
        head, tail = (read_offsets(text, read_number_pair(record, name), offsets, name) for name in ("head", "tail"))
    return RelationInstance(
        id=read_id(record, number),
        text=text,
        head=head,
        tail=tail,
        relation=read_optional_string(record, "relation"),
        head_type=read_optional_string(record, "head_type") or "",
        tail_type=read_optional_string(record, "tail_type") or "",
    )


# The table of formats -------------------------------------------------------------------------------------------------

_Read = Callable[[Path, Refuse, Offsets], Iterator[RelationInstance]]


def _without_offsets(read: Callable[[Path, Refuse], Iterator[RelationInstance]]) -> _Read:
    """Return a reader of files that have no offsets in texts, so that their unit does not matter."""
    return lambda path, refuse, _: read(path, refuse)


_READERS: Mapping[str, _Read] = {
    "semeval": _without_offsets(read_semeval),
    "jsonl": read_jsonl,
    "markers": _without_offsets(read_markers),
    "tacred": _without_offsets(read_tacred),
}
"""How each of `FORMATS` but "auto" is read."""
