"""Read TACRED's file format: a JSON list of records, or one record a line.

Zhang et al. 2017, "Position-aware Attention and Supervised Data Improve Slot Filling". The corpus is licensed by the
Linguistic Data Consortium and is not shipped; ``examples/tacred_like`` holds sentences of our own in its format.

    {"id": "a1", "relation": "per:title", "token": ["Ines", "Moravec", ",", "a", "pilot"],
     "subj_start": 0, "subj_end": 1, "obj_start": 4, "obj_end": 4, "subj_type": "PERSON", "obj_type": "TITLE"}

The subject is the head, the object the tail; ``docid``, which may be missing, tells the sentences of a document. Other
fields (``stanford_pos``, …) are not used.

Spans count tokens from 0. Their ends are inclusive in the corpus (``tacred``). Hugging Face's copy has the same fields,
but exclusive ends (``tacred_exclusive``). No field says so, but an entity of one token does: its end equals its start
in the first form only. "auto" takes the second form where none of the first `_SAMPLE` records has such an entity, and
there are that many; about half of all entities have one token.

The text of an instance is its tokens joined by one space, with the Penn Treebank's written-out brackets and quotation
marks turned back (``-LRB-`` is ``(``, ``''`` is ``"``): pretrained models have read the signs, not their names, and
cut ``-LRB-`` into several tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from retrograd.data.record_fields import (
    locate_tokens,
    read_id,
    read_optional_string,
    read_records,
    read_string,
    read_tokens,
    read_whole_number,
    require_fields,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import read_text_records
from retrograd.data.rows import first_rows
from retrograd.types import Span, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_tacred", "holds_tacred_exclusive", "read_tacred", "read_tacred_exclusive"]

_SAMPLE = 20
_ROLES = ("subj", "obj")
_REQUIRED = ("id", "token", "subj_start", "subj_end", "obj_start", "obj_end", "subj_type", "obj_type")
_SIGNS = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
}


def holds_tacred(beginning: FileBeginning) -> bool:
    """Return whether the first record has tokens, and a subject and an object with their ends."""
    return beginning.has("token", "subj_start", "obj_start")


def holds_tacred_exclusive(beginning: FileBeginning) -> bool:
    """Return whether the file is of this kind, and its first records have no entity that ends where it starts."""
    if not holds_tacred(beginning):
        return False
    sample = first_rows(beginning.path, count=_SAMPLE)
    one_token = (record.get(f"{role}_start") == record.get(f"{role}_end") for record in sample for role in _ROLES)
    return len(sample) == _SAMPLE and not any(one_token)


def read_tacred(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of a file in TACRED's format, types and ids with them; ``relation`` may be missing.

    Refuses, with file, line and record, what is out of range or there twice. Raises `UserError` for what is no JSON.
    """
    return read_records(path, read_text_records(path, refuse), _read_inclusive, refuse)


def read_tacred_exclusive(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of a file in TACRED's format whose ends are exclusive, as `read_tacred` does."""
    return read_records(path, read_text_records(path, refuse), _read_exclusive, refuse)


def _read_inclusive(record: JsonObject, number: int) -> RelationInstance:
    return _read_instance(record, number, 1)


def _read_exclusive(record: JsonObject, number: int) -> RelationInstance:
    return _read_instance(record, number, 0)


def _read_instance(record: JsonObject, number: int, behind_last: int) -> RelationInstance:
    """Return an instance; ``behind_last`` added to an end is the token behind the last."""
    require_fields(record, _REQUIRED)
    tokens = [_SIGNS.get(token.upper(), token) for token in read_tokens(record, "token")]
    head, tail = (_read_span(record, role, tokens, behind_last) for role in _ROLES)
    return RelationInstance(
        id=read_id(record, number),
        text=" ".join(tokens),
        head=head,
        tail=tail,
        relation=read_optional_string(record, "relation"),
        head_type=read_string(record, "subj_type"),
        tail_type=read_string(record, "obj_type"),
        document=document if isinstance(document := record.get("docid"), str) else "",
    )


def _read_span(record: JsonObject, role: str, tokens: Sequence[str], behind_last: int) -> Span:
    """Return the character offsets of ``role``_start to ``role``_end."""
    start, end = (read_whole_number(record, f"{role}_{side}") for side in ("start", "end"))
    stop = end + behind_last
    if not 0 <= start < stop <= len(tokens):
        counts = "is the last token itself" if behind_last else "is exclusive"
        other = "tacred_exclusive" if behind_last else "tacred"
        raise UserError(
            f"{role}_start {start} and {role}_end {end} are no span of {len(tokens)} tokens; "
            f'positions count tokens from 0, and the end {counts} (data.format = "{other}" counts otherwise)'
        )
    return locate_tokens(tokens, (start, stop), role)
