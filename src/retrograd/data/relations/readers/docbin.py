"""Read spaCy's ``DocBin`` (files that end in ``.spacy``) with relations as spaCy's tutorial of relations keeps them.

``doc._.rel`` is ``{(start of the head, start of the tail): {label: score}}``, both the first token of an entity in
``doc.ents``; a label with a score of at least 0.5 is a relation, and one with less is none. Such a file is written by
``DocBin(docs, store_user_data=True)``.

The text of an instance is that of the sentences from its first entity to the other where documents have sentences, else
the whole text. A pair without a relation is no instance.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, cast

from retrograd.data.record_fields import locate_errors
from retrograd.data.relations.beginnings import DOCBIN_SUFFIX, FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import Mention
from retrograd.types import Span, UserError
from retrograd.util.guards import first_line, require_file
from retrograd.util.optional import require_package
from retrograd.util.text_files import Refuse, raise_error

if TYPE_CHECKING:
    from spacy.tokens import Doc

__all__ = ["holds_docbin", "read_docbin"]

_LEAST_SCORE = 0.5
_KEY = ("._.", "rel", None, None)
"""Where a document keeps ``doc._.rel``, without the extension being declared."""


def holds_docbin(beginning: FileBeginning) -> bool:
    """Return whether the file is named as spaCy names its files of documents."""
    return beginning.path.suffix == DOCBIN_SUFFIX


def read_docbin(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Yield an instance for each relation of the documents; malformed ones are refused, with document and relation.

    The id is the number of the document with that of the relation in it, both from 1. Raises `UserError` for a damaged
    file, and where spaCy is not installed.
    """
    require_file(path)
    require_package(f"{path}, a file of spaCy's documents,", "spacy", "spacy")
    has_relations = False
    for number, doc in enumerate(_open_documents(path), start=1):
        relations = cast(Mapping[object, object], doc.user_data).get(_KEY)
        if not isinstance(relations, Mapping):
            continue
        has_relations = True
        entities = {
            entity.start: Mention(Span(entity.start_char, entity.end_char), entity.label_) for entity in doc.ents
        }
        found = [(pair, label) for pair, labels in relations.items() for label in _labels(labels)]
        for count, (pair, label) in enumerate(found, start=1):
            with locate_errors(path, f"document {number}, relation {count}", refuse):
                yield _make_instance(f"{number}:{count}", doc, entities, pair, label)
    if not has_relations:
        raise UserError(
            f"{path}: no document has relations in doc._.rel; write them, and save with "
            f"DocBin(docs, store_user_data=True)"
        )


def _open_documents(path: Path) -> list[Doc]:
    from spacy.tokens import DocBin
    from spacy.vocab import Vocab

    try:
        return list(DocBin().from_bytes(path.read_bytes()).get_docs(Vocab()))
    except Exception as error:  # spaCy checks nothing that it reads, so that any error may come of damage
        raise UserError(f"{path}: damaged, or no DocBin ({first_line(error)}); write it again") from None


def _labels(labels: object) -> list[str]:
    """Return the labels that are relations: those with a score of at least `_LEAST_SCORE`."""
    if not isinstance(labels, Mapping):
        return []
    scores = {str(label): score for label, score in labels.items() if isinstance(score, int | float)}
    return [label for label, score in scores.items() if score >= _LEAST_SCORE]


def _make_instance(id_: str, doc: Doc, entities: Mapping[int, Mention], pair: object, label: str) -> RelationInstance:
    starts = list(pair) if isinstance(pair, tuple | list) else []
    if len(starts) != 2 or not all(type(start) is int and start in entities for start in starts):
        raise UserError(f"{pair!r} are not the first tokens of two entities in doc.ents; set doc.ents to them")
    head, tail = (entities[start] for start in starts)
    text = Span(0, len(doc.text))
    if doc.has_annotation("SENT_START"):
        first, last = min(head.span.start, tail.span.start), max(head.span.end, tail.span.end)
        sentences = [sentence for sentence in doc.sents if sentence.end_char > first and sentence.start_char < last]
        text = Span(sentences[0].start_char, sentences[-1].end_char)
    spans = [Span(mention.span.start - text.start, mention.span.end - text.start) for mention in (head, tail)]
    return RelationInstance(id_, text.of(doc.text), spans[0], spans[1], label, head.kind, tail.kind)
