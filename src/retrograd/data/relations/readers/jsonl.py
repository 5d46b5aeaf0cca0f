"""Read relation instances from plain JSON Lines, in one of two layouts.

    {"text": "A ridge uprises.", "head": [2, 7], "tail": [8, 15], "relation": "…"}
    {"tokens": ["A", "ridge", "uprises"], "head": [1, 2], "tail": [2, 3], "relation": "…"}

Offsets count characters (or other units: `retrograd.data.offsets`), positions count tokens; both ends are exclusive.
An entity may also be the words themselves, ``"head": "ridge"``, where they stand in the text exactly once.
``relation``, ``id``, ``head_type``, ``tail_type`` and ``metadata`` (ignored) are optional.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrograd.data.offsets import Offsets, read_offsets
from retrograd.data.record_fields import (
    locate_tokens,
    missing_field,
    number_records,
    read_id,
    read_number_pair,
    read_optional_string,
    read_records,
    read_string,
    read_tokens,
    refuse_unknown,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.proposals import propose_map
from retrograd.metrics.words import cuts_word
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, describe_value
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["has_spans", "holds_jsonl", "read_instance", "read_jsonl"]

_MOST_OCCURRENCES = 1_000  # each is compared with the words around it, in time that grows with their length
_COMMON_FIELDS = ("id", "relation", "head_type", "tail_type", "metadata")


def holds_jsonl(beginning: FileBeginning) -> bool:
    """Return whether the first line is a record with a text, or tokens, and its entities apart."""
    return beginning.is_lines and has_spans(beginning.record)


def has_spans(record: JsonObject) -> bool:
    """Return whether a record has the fields of this format rather than marked text."""
    return "tokens" in record or ("text" in record and "head" in record)


def read_jsonl(path: Path, refuse: Refuse = raise_error, offsets: Offsets = "characters") -> Iterator[RelationInstance]:
    """Return the instances of JSON Lines in either layout of the module's docstring.

    Refuses the others, with file and line.
    """

    def read(record: JsonObject, number: int) -> RelationInstance:
        return read_instance(record, number, offsets)

    return read_records(path, number_records("line", text_files.read_jsonl(path, refuse)), read, refuse)


def read_instance(record: JsonObject, number: int, offsets: Offsets, permits_more: bool = False) -> RelationInstance:
    """Return the instance of a record; ``permits_more`` ignores fields that are not known.

    Raises `UserError` for a malformed one.
    """
    text_field = "tokens" if "tokens" in record else "text"
    names = (text_field, "head", "tail")
    for name in names:
        if name not in record:
            raise UserError("; ".join([str(missing_field(record, name)), *propose_map([record])]))
    if not permits_more:
        refuse_unknown(record, (*names, *_COMMON_FIELDS))
    tokens = read_tokens(record, "tokens") if text_field == "tokens" else None
    text = read_string(record, "text") if tokens is None else " ".join(tokens)
    head, tail = (_read_entity(record, name, text, tokens, offsets) for name in ("head", "tail"))
    return RelationInstance(
        id=read_id(record, number),
        text=text,
        head=head,
        tail=tail,
        relation=read_optional_string(record, "relation"),
        head_type=read_optional_string(record, "head_type") or "",
        tail_type=read_optional_string(record, "tail_type") or "",
    )


def _read_entity(record: JsonObject, name: str, text: str, tokens: list[str] | None, offsets: Offsets) -> Span:
    value = record[name]
    if isinstance(value, str):
        return _find_words(value.strip(), text, name)
    pair = read_number_pair(record, name)
    return read_offsets(text, pair, offsets, name) if tokens is None else locate_tokens(tokens, pair, name)


def _find_words(words: str, text: str, name: str) -> Span:
    """Return the one place where whole words stand in a text. Raises `UserError` with the number of places."""
    if not words:
        raise UserError(f"{name!r} is blank; expected the words of the entity, or two whole numbers [start, end]")
    starts: list[int] = []
    start, occurrences = text.find(words), 0
    while start >= 0 and occurrences < _MOST_OCCURRENCES:
        if not cuts_word(text, start) and not cuts_word(text, start + len(words)):
            starts.append(start)
        start, occurrences = text.find(words, start + 1), occurrences + 1
    if len(starts) == 1 and start < 0:
        return Span(starts[0], starts[0] + len(words))
    times = f"{len(starts)} times" if starts or start >= 0 else "nowhere"
    raise UserError(
        f"{name} {describe_value(words)} stands {times} in the text, as whole words; give its offsets, as "
        f"[start, end], or mark both entities: <e1>head</e1> … <e2>tail</e2>"
    )
