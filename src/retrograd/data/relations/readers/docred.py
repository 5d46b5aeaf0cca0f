"""Read DocRED (Yao et al. 2019) and Re-DocRED: documents with entities of several mentions, and relations of entities.

    [{"title": "Ada", "sents": [["Ada", "lives", "in", "Ulm", "."], ["She", "sings", "."]],
      "vertexSet": [[{"name": "Ada", "sent_id": 0, "pos": [0, 1], "type": "PER"}, {"name": "She", …}], …],
      "labels": [{"h": 0, "t": 1, "r": "P551", "evidence": [0]}]}, …]

``pos`` counts the tokens of a sentence, the end exclusive; ``h`` and ``t`` are places in ``vertexSet``, from 0. The
form of Hugging Face's copy is read, too: lists of ``head``, ``tail`` and ``relation_id``. All of this is a choice:

* **Instances** are all ordered pairs of entities. A pair without a label has the relation `NO_LABEL`, and one with
  several labels is an instance for each. A document without the field ``labels`` has instances without a relation.
* **Mentions** of a pair are the two that are nearest: in the same sentence, else the fewest sentences apart, then with
  the fewest tokens between them; the first of equally near ones. A pair whose mentions all overlap has no instance.
* **The text** is the sentences from the one of the first mention to that of the other.
* **The id** is the record's number with the places of head and tail, ``3:0-1``, and of its label where it has several.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from retrograd.data.record_fields import (
    locate_errors,
    locate_tokens,
    name_type,
    read_number_pair,
    read_tokens,
    require_fields,
)
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import (
    AnnotatedDocument,
    AnnotatedText,
    Mention,
    ReadRelation,
    read_annotated_texts,
    read_label,
    read_list,
    read_text_records,
)
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, JsonValue, describe_value
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["NO_LABEL", "holds_docred", "read_docred", "read_documents"]

NO_LABEL = "NA"
"""The relation of a pair of entities that no label is annotated for."""

_HUGGING_FACE = {"head": "h", "tail": "t", "relation_id": "r"}


@dataclass(frozen=True, slots=True)
class _DocumentMention:
    """A mention: its sentence, its first token and the one behind its last there, and its type."""

    sentence: int
    start: int
    end: int
    kind: str


def holds_docred(beginning: FileBeginning) -> bool:
    """Return whether the first record has sentences and a set of entities."""
    return beginning.has("sents", "vertexSet")


def read_docred(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of a file in DocRED's format; malformed documents are refused, with their place."""
    return read_annotated_texts(path, read_text_records(path, refuse), _read_document, refuse)


def read_documents(path: Path, refuse: Refuse = raise_error) -> Iterator[AnnotatedDocument]:
    """Yield the documents themselves, each with all mentions of its entities; malformed ones are refused.

    The text is all tokens with single spaces between them.
    """
    for place, number, record in read_text_records(path, refuse):
        with locate_errors(path, place, refuse):
            yield _make_document(str(number), *_read_parts(record))


def _make_document(
    id_: str,
    sentences: Sequence[list[str]],
    entities: Sequence[list[_DocumentMention]],
    labels: Mapping[tuple[int, int], list[str]] | None,
) -> AnnotatedDocument:
    tokens = [token for sentence in sentences for token in sentence]
    starts = [0, *itertools.accumulate(len(sentence) for sentence in sentences)]
    places = [(first, last) for first, last in itertools.pairwise(starts) if first < last]
    mentions = (
        tuple(
            Mention(
                locate_tokens(tokens, (starts[one.sentence] + one.start, starts[one.sentence] + one.end), "mention"),
                one.kind,
            )
            for one in entity
        )
        for entity in entities
    )
    triples = None if labels is None else frozenset((h, own, t) for (h, t), names in labels.items() for own in names)
    spans = tuple(locate_tokens(tokens, place, "sentence") for place in places)
    return AnnotatedDocument(id_, " ".join(tokens), spans, tuple(mentions), triples)


def _read_document(record: JsonObject, number: int) -> AnnotatedText:
    return AnnotatedText(str(number), _list_pairs(*_read_parts(record)))


_Parts = tuple[list[list[str]], "list[list[_DocumentMention]]", Mapping[tuple[int, int], list[str]] | None]


def _read_parts(record: JsonObject) -> _Parts:
    """Return the tokens of the sentences, the mentions of the entities, and the labels of their pairs."""
    require_fields(record, ("sents", "vertexSet"))
    sentences = [read_tokens({"sents": sentence}, "sents") for sentence in read_list(record, "sents")]
    entities = [_read_entity(value, place, sentences) for place, value in enumerate(read_list(record, "vertexSet"))]
    labels = None if record.get("labels") is None else _read_labels(record, len(entities))
    return sentences, entities, labels


def _read_entity(value: JsonValue, place: int, sentences: Sequence[list[str]]) -> list[_DocumentMention]:
    if not isinstance(value, list) or not value:
        raise UserError(f"entity {place} of 'vertexSet' is {describe_value(value)}; expected a list of mentions")
    return [_read_mention(mention, f"entity {place}", sentences) for mention in value]


def _read_mention(value: JsonValue, name: str, sentences: Sequence[list[str]]) -> _DocumentMention:
    if not isinstance(value, dict):
        raise UserError(f'{name} has a mention that is {name_type(value)}; expected {{"sent_id": 0, "pos": [0, 1]}}')
    require_fields(value, ("sent_id", "pos"))
    sentence, kind = value["sent_id"], value.get("type")
    if type(sentence) is not int or not 0 <= sentence < len(sentences):
        raise UserError(f"{name} has 'sent_id' {describe_value(sentence)}; expected one of {len(sentences)}, from 0")
    start, end = read_number_pair(value, "pos")
    locate_tokens(sentences[sentence], (start, end), name)
    return _DocumentMention(sentence, start, end, kind if isinstance(kind, str) else "")


def _read_labels(record: JsonObject, entities: int) -> Mapping[tuple[int, int], list[str]]:
    """Return the labels of each pair of entities that has any, each once."""
    value = record["labels"]
    rows = _rows_of_columns(value) if isinstance(value, dict) else read_list(record, "labels")
    labels: dict[tuple[int, int], dict[str, None]] = {}
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UserError(f'label {number} is {name_type(row)}; expected {{"h": 0, "t": 1, "r": "…"}}')
        require_fields(row, ("h", "t", "r"))
        head, tail = (place if type(place) is int else -1 for place in (row["h"], row["t"]))
        if not 0 <= head < entities or not 0 <= tail < entities or head == tail:
            pair = f"{describe_value(row['h'])} and {describe_value(row['t'])}"
            raise UserError(f"label {number} is of {pair}; expected the places of two of {entities} entities, from 0")
        labels.setdefault((head, tail), {})[read_label(row["r"], f"'r' of label {number}")] = None
    return {pair: list(own) for pair, own in labels.items()}


def _rows_of_columns(columns: JsonObject) -> list[JsonValue]:
    """Return labels of Hugging Face's form, lists by field, as a list of objects with DocRED's names."""
    names = list(_HUGGING_FACE)
    lists = [read_list(columns, name) for name in names]
    if len({len(own) for own in lists}) > 1:
        raise UserError(f"'labels' has lists of different lengths; expected {', '.join(names)} of equal length")
    return [dict(zip(_HUGGING_FACE.values(), row, strict=True)) for row in zip(*lists, strict=True)]


def _list_pairs(
    sentences: Sequence[list[str]],
    entities: Sequence[list[_DocumentMention]],
    labels: Mapping[tuple[int, int], list[str]] | None,
) -> Iterator[tuple[str, ReadRelation]]:
    starts = [0, *itertools.accumulate(len(sentence) for sentence in sentences)]
    for head, tail in itertools.permutations(range(len(entities)), 2):
        mentions = _nearest_mentions(entities[head], entities[tail], starts)
        if mentions is None:
            continue
        own: Sequence[str | None] = [None] if labels is None else labels.get((head, tail), [NO_LABEL])
        for count, label in enumerate(own):
            name = f"entities {head}-{tail}" + (f"-{count}" if len(own) > 1 else "")
            yield name, partial(_make_instance, sentences, mentions, label)


def _nearest_mentions(
    heads: Sequence[_DocumentMention], tails: Sequence[_DocumentMention], starts: Sequence[int]
) -> tuple[_DocumentMention, _DocumentMention] | None:
    """Return the mentions of two entities that are nearest, as the module says; None where all overlap.

    ``starts`` is the place of the first token of each sentence in the document.
    """

    def distance(pair: tuple[_DocumentMention, _DocumentMention]) -> tuple[int, int]:
        first, second = sorted(pair, key=lambda mention: (mention.sentence, mention.start))
        tokens = starts[second.sentence] + second.start - starts[first.sentence] - first.end
        return second.sentence - first.sentence, tokens

    apart = [
        (head, tail)
        for head, tail in itertools.product(heads, tails)
        if head.sentence != tail.sentence or head.end <= tail.start or tail.end <= head.start
    ]
    return min(apart, key=distance, default=None)


def _make_instance(
    sentences: Sequence[list[str]],
    mentions: tuple[_DocumentMention, _DocumentMention],
    label: str | None,
    id_: str,
) -> RelationInstance:
    first, last = sorted(mention.sentence for mention in mentions)
    tokens = [token for sentence in sentences[first : last + 1] for token in sentence]
    spans = []
    for mention in mentions:
        before = sum(len(sentence) for sentence in sentences[first : mention.sentence])
        spans.append(locate_tokens(tokens, (before + mention.start, before + mention.end), "mention"))
    head, tail = mentions
    return RelationInstance(id_, " ".join(tokens), spans[0], spans[1], label, head.kind, tail.kind)
