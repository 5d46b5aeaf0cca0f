"""Read FewRel's files (Han et al. 2018): one object of lists of instances by their relation.

    {"author of": [{"tokens": ["Ada", "wrote", "it"], "h": ["ada", "Q1", [[0]]], "t": ["it", "Q2", [[2]]]}, …], …}

``h`` is the head, ``t`` the tail: a name, an id and mentions, each a list of the positions of its tokens. The first
mention counts, from its first token to its last; names and ids of entities are not used. The id of an instance is its
number in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrograd.data.record_fields import Records, name_type, read_records, read_string, read_tokens, require_fields
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import locate_last_token
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, describe_value
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_fewrel", "read_fewrel"]

_FIELDS = ("tokens", "h", "t")


def holds_fewrel(beginning: FileBeginning) -> bool:
    """Return whether the file is an object whose first value is a list of instances."""
    first = next(iter(beginning.content.values()), None)
    instance = first[0] if isinstance(first, list) and first else None
    return isinstance(instance, dict) and all(name in instance for name in _FIELDS)


def read_fewrel(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of a file in FewRel's format; malformed ones are refused, with file and relation.

    Raises `UserError` for a file that is no object.
    """
    content = text_files.read_json(path)
    if not isinstance(content, dict):
        raise UserError(f"{path} is {name_type(content)}; expected an object of lists of instances by relation")
    return read_records(path, _records(path, content, refuse), _read_instance, refuse)


def _records(path: Path, content: JsonObject, refuse: Refuse) -> Records:
    number = 0
    for relation, instances in content.items():
        if not isinstance(instances, list):
            refuse(UserError(f"{path}, relation {relation!r}: {name_type(instances)}; expected a list of instances"))
            continue
        for place, instance in enumerate(instances, start=1):
            number += 1
            where = f"relation {relation!r}, instance {place}"
            if isinstance(instance, dict):
                yield where, number, {**instance, "relation": relation}
            else:
                refuse(UserError(f"{path}, {where}: {name_type(instance)}; expected an object"))


def _read_instance(record: JsonObject, number: int) -> RelationInstance:
    require_fields(record, _FIELDS)
    tokens = read_tokens(record, "tokens")
    head, tail = (_read_entity(record, name, tokens) for name in ("h", "t"))
    return RelationInstance(str(number), " ".join(tokens), head, tail, read_string(record, "relation"))


def _read_entity(record: JsonObject, name: str, tokens: list[str]) -> Span:
    entity = record[name]
    mentions = entity[2] if isinstance(entity, list) and len(entity) > 2 else None
    mention = mentions[0] if isinstance(mentions, list) and mentions else None
    positions = [place for place in mention if type(place) is int] if isinstance(mention, list) else []
    if not positions or not isinstance(mention, list) or len(positions) != len(mention):
        raise UserError(f"{name!r} is {describe_value(entity)}; expected a name, an id and lists of token positions")
    return locate_last_token(tokens, min(positions), max(positions), name)
