"""Read DyGIE's format (Wadden et al. 2019), as SciERC, ChemProt and CrossRE have it: one document or sentence a line.

    {"doc_key": "a", "sentences": [["Ada", "wrote", "."], ["She", "sang", "songs"]], "ner": [[[0, 0, "PER"]], […]],
     "relations": [[], [[3, 3, 5, 5, "sings"]]]}
    {"doc_key": "b", "sentence": ["Ada", "sings"], "ner": [[0, 0, "PER"], …], "relations": [[0, 0, 1, 1, "sings"]]}

Positions count the tokens of the whole document, from 0, and the end is the last token itself. A relation is start and
end of the head, start and end of the tail, and a label; what follows it (CrossRE's explanation and two marks) is not
used. With ``sentences``, ``ner`` and ``relations`` have one list for each; the text of an instance is the sentence that
both entities stand in. A pair with several labels is one instance for each; a pair without any is none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from retrograd.data.record_fields import find_id, read_tokens
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import (
    AnnotatedText,
    ReadRelation,
    locate_last_token,
    read_annotated_texts,
    read_integers,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_dygie", "read_dygie"]

_IDS = ("doc_key", "id", "doc_id")
_Types = dict[tuple[int, int], str]


def holds_dygie(beginning: FileBeginning) -> bool:
    """Return whether the first record has ``sentence(s)`` of tokens and ``relations``."""
    texts = (beginning.record.get(name) for name in ("sentences", "sentence"))
    return any(isinstance(text, list) for text in texts) and beginning.has("relations")


def read_dygie(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return an instance for each relation of a file of this kind; malformed ones are refused, with their place."""
    return read_annotated_texts(path, read_text_records(path, refuse), _read_document, refuse)


def _read_document(record: JsonObject, number: int) -> AnnotatedText:
    if "sentence" in record:
        sentences = [read_tokens(record, "sentence")]
        entities, relations = [read_list(record, "ner")], [read_list(record, "relations")]
    else:
        sentences = [read_tokens({"sentence": sentence}, "sentence") for sentence in read_list(record, "sentences")]
        entities, relations = (_read_lists(record, name, len(sentences)) for name in ("ner", "relations"))
    types: _Types = {}
    for entity in (entity for own in entities for entity in own):
        first, last = read_integers(
            entity, 2, "an entity of 'ner'", "[start, end, type], the end the last token itself"
        )
        kind = entity[2] if isinstance(entity, list) and len(entity) > 2 else ""
        types.setdefault((first, last), kind if isinstance(kind, str) else "")
    return AnnotatedText(find_id(record, number, _IDS), _list_relations(sentences, relations, types))


def _read_lists(record: JsonObject, name: str, count: int) -> list[list[JsonValue]]:
    """Return the lists of a field, one for each sentence; empty ones where the field is missing."""
    lists = read_list(record, name) or [[] for _ in range(count)]
    if len(lists) != count or not all(isinstance(own, list) for own in lists):
        raise UserError(f"{name!r} has {len(lists)} entries, 'sentences' {count}; expected one list for each sentence")
    return [own for own in lists if isinstance(own, list)]


def _list_relations(
    sentences: Sequence[list[str]], relations: Sequence[list[JsonValue]], types: _Types
) -> Iterator[tuple[str, ReadRelation]]:
    number = first_token = 0
    for tokens, own in zip(sentences, relations, strict=True):
        for relation in own:
            number += 1
            yield f"relation {number}", partial(_read_relation, tokens, first_token, relation, types)
        first_token += len(tokens)


def _read_relation(tokens: list[str], first_token: int, value: JsonValue, types: _Types, id_: str) -> RelationInstance:
    numbers = read_integers(value, 4, "it", "[start, end, start, end, label], each end the last token itself")
    label = value[4] if isinstance(value, list) and len(value) > 4 else None
    pairs = [(numbers[0], numbers[1]), (numbers[2], numbers[3])]
    for name, (first, last) in zip(("head", "tail"), pairs, strict=True):
        if not first_token <= first <= last < first_token + len(tokens):
            raise UserError(
                f"{name} [{first}, {last}] does not lie in its sentence, tokens {first_token} to "
                f"{first_token + len(tokens) - 1} of the document; list a relation with the sentence of both entities"
            )
    head, tail = (
        locate_last_token(tokens, first - first_token, last - first_token, name)
        for name, (first, last) in zip(("head", "tail"), pairs, strict=True)
    )
    kinds = [types.get(pair, "") for pair in pairs]
    relation = read_label(label, "its label")
    return RelationInstance(id_, " ".join(tokens), head, tail, relation, kinds[0], kinds[1])
