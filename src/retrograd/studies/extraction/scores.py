"""Precision and recall of what was extracted, against gold relations: of triples in documents, of pairs of mentions.

*Triples* are those of a document after its mentions are merged (`retrograd.studies.extraction.merging`): (head,
relation, tail), each once. An entity that was found is the gold entity with which it has a name in common, of the same
type where there is one. *Pairs* are the mentions themselves: the text, both spans to the character, and the relation.
Directed labels are turned, and the negative relation is nothing to be found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import AnnotatedDocument
from retrograd.metrics.relations import PrecisionRecallF1
from retrograd.metrics.triples import score_triples
from retrograd.studies.extraction.merging import EntityNames, Name, name_words
from retrograd.studies.extraction.triples import Place, Triple, read_direction, single_spaced
from retrograd.types import Span
from retrograd.util.guards import JsonObject

__all__ = [
    "ExtractionScores",
    "GoldDocument",
    "gold_document",
    "gold_documents",
    "mention_names",
    "score_documents",
    "score_pairs",
]


@dataclass(frozen=True)
class GoldDocument:
    """The entities of a document, each by the names and types of its mentions, and the triples between them.

    A triple has the places of its head and tail in ``entities``.
    """

    entities: tuple[tuple[Name, ...], ...]
    triples: frozenset[tuple[int, str, int]]


@dataclass(frozen=True)
class ExtractionScores:
    """Scores over ``documents`` documents with gold relations; ``pairs`` is None where no mentions are labelled."""

    triples: PrecisionRecallF1
    pairs: PrecisionRecallF1 | None
    documents: int

    def record(self) -> JsonObject:
        """Return the scores in percent, with what they count."""
        pairs = None if self.pairs is None else _record(self.pairs)
        return {"documents": self.documents, "triples": _record(self.triples), "pairs": pairs}


def _record(scores: PrecisionRecallF1) -> JsonObject:
    return {
        "precision": scores.precision,
        "recall": scores.recall,
        "f1": scores.f1,
        "correct": scores.correct,
        "extracted": scores.guessed,
        "gold": scores.gold,
    }


def mention_names(instance: RelationInstance) -> tuple[Name, Name]:
    """Return name and type of head and tail, in the order of the instance."""
    head, tail = (single_spaced(span.of(instance.text)) for span in (instance.head, instance.tail))
    return (head, instance.head_type), (tail, instance.tail_type)


def gold_document(document: AnnotatedDocument) -> GoldDocument:
    """Return the gold entities and triples of a document that states them."""
    entities = tuple(
        tuple(dict.fromkeys((single_spaced(one.span.of(document.text)), one.kind) for one in mentions))
        for mentions in document.entities
    )
    return GoldDocument(entities, document.triples or frozenset())


def gold_documents(instances: Iterable[tuple[str, RelationInstance]], negative: str | None) -> dict[str, GoldDocument]:
    """Return the gold documents of labelled instances, each with the key of its document: mentions are merged."""
    by_document: dict[str, list[RelationInstance]] = {}
    for key, instance in instances:
        by_document.setdefault(key, []).append(instance)
    return {key: _gold_document(own, negative) for key, own in by_document.items()}


def _gold_document(instances: Sequence[RelationInstance], negative: str | None) -> GoldDocument:
    mentions = [name for instance in instances for name in mention_names(instance)]
    merged = EntityNames.of(mentions)
    entities: dict[Name, list[Name]] = {}
    for name, kind in dict.fromkeys(mentions):
        entities.setdefault((merged.of_entity(name, kind), kind), []).append((name, kind))
    places = {name: place for place, names in enumerate(entities.values()) for name in names}
    triples = set()
    for instance in instances:
        if instance.relation is None or instance.relation == negative:
            continue
        relation, is_reversed = read_direction(instance.relation)
        head, tail = mention_names(instance)[:: -1 if is_reversed else 1]
        triples.add((places[head], relation, places[tail]))
    return GoldDocument(tuple(tuple(names) for names in entities.values()), frozenset(triples))


def score_documents(
    gold: Mapping[str, GoldDocument], triples: Iterable[tuple[str, Triple]], documents: Mapping[str, EntityNames]
) -> PrecisionRecallF1:
    """Return the scores of triples, each with the key of its document, before they are merged.

    ``documents`` are the entities that were found in each.
    """
    predicted: dict[str, set[tuple[object, str, object]]] = {}
    finders = {key: _EntityFinder(document, documents.get(key, EntityNames({}))) for key, document in gold.items()}
    for key, triple in triples:
        if key in finders:
            head = finders[key].find((triple.head, triple.head_type))
            tail = finders[key].find((triple.tail, triple.tail_type))
            predicted.setdefault(key, set()).add((head, triple.relation, tail))
    return score_triples({key: document.triples for key, document in gold.items()}, predicted)


class _EntityFinder:
    """Finds the gold entity that a mention is of."""

    def __init__(self, gold: GoldDocument, found: EntityNames) -> None:
        self._found = found
        self._exact: dict[tuple[tuple[str, ...], str], int] = {}
        self._by_words: dict[tuple[str, ...], int] = {}
        for place, names in enumerate(gold.entities):
            for name, kind in names:
                self._exact.setdefault((name_words(name), kind), place)
                self._by_words.setdefault(name_words(name), place)
        self._members: dict[Name, list[str]] = {}
        for (name, kind), whole in found.names.items():
            self._members.setdefault((whole, kind), []).append(name)

    def find(self, mention: Name) -> int | Name:
        """Return the place of the gold entity; for a mention of none, the entity that was found."""
        name, kind = mention
        whole = self._found.of_entity(name, kind)
        words = [name_words(one) for one in (name, whole, *self._members.get((whole, kind), ()))]
        places = [self._exact.get((own, kind)) for own in words] + [self._by_words.get(own) for own in words]
        return next((place for place in places if place is not None), (whole, kind))


_Mentions = tuple[str, str, Span, Span, str]


def score_pairs(
    gold: Iterable[tuple[str, RelationInstance]], triples: Iterable[tuple[Place, Triple]], negative: str | None
) -> PrecisionRecallF1:
    """Return the scores of triples as pairs of mentions; gold instances come with the key of their document."""
    labelled: set[_Mentions] = set()
    for key, instance in gold:
        if instance.relation is not None and instance.relation != negative:
            relation, is_reversed = read_direction(instance.relation)
            head, tail = (instance.head, instance.tail)[:: -1 if is_reversed else 1]
            labelled.add((key, instance.text, head, tail, relation))
    found: set[_Mentions] = {
        (place.document, place.text, source.head, source.tail, triple.relation)
        for place, triple in triples
        for source in triple.sources
    }
    return score_triples({"": labelled}, {"": found})
