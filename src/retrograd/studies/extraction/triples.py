"""Triples of a knowledge graph, with a score and all the places that they were read in."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp

from retrograd.data.relations.instance import RelationInstance
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.metrics.relations import DIRECTIONS, parse_relation
from retrograd.types import Prediction, Span
from retrograd.util.guards import JsonObject
from retrograd.util.records import record_mapping

__all__ = ["Place", "Triple", "TripleEvidence", "TripleSource", "make_triple", "read_direction", "single_spaced"]


@dataclass(frozen=True)
class TripleEvidence:
    """A training instance that was read: its id, its label's phrase, its weight p(z|x, answer)."""

    id: str
    label: str
    weight: float


@dataclass(frozen=True)
class TripleSource:
    """A place that a triple was read in.

    ``document`` is the path of a file; ``id`` names the pair. ``text`` is what the model read, the characters ``span``
    of the file's text; ``head`` and ``tail`` are the characters of the two mentions. In a file of records all three
    count in the record's own text.
    """

    id: str
    document: str
    text: str
    span: Span
    head: Span
    tail: Span
    score: float
    neighbours: tuple[TripleEvidence, ...] = ()


@dataclass(frozen=True)
class Triple:
    """A relation between two entities: ``head`` stands in ``relation`` to ``tail``.

    Directed labels are turned so that the relation runs this way. Names have single spaces where the text has any white
    space.

    ``score`` is the probability of the answer among those permitted, as the model decides. ``sentence`` and ``id`` are
    where it was read, ``neighbours`` what was read beside it; where it was read several times, those of the best score.
    ``sources`` are all the places, that one first.
    """

    head: str
    relation: str
    tail: str
    head_type: str
    tail_type: str
    score: float
    sentence: str
    id: str
    neighbours: tuple[TripleEvidence, ...] = ()
    sources: tuple[TripleSource, ...] = ()

    def record(self) -> JsonObject:
        """Return the triple as a line of JSON."""
        return record_mapping(self)


@dataclass(frozen=True, slots=True)
class Place:
    """Where the text of an instance stands: the path of its file, the whole text, and its first character there.

    ``document`` tells documents apart, whose mentions are merged: a file of plain text is one, one of records has many.
    """

    path: str = ""
    text: str = ""
    start: int = 0
    document: str = ""


def make_triple(
    instance: RelationInstance, label: str, answer: Prediction, base: KnowledgeBase, place: Place | None = None
) -> Triple:
    """Return the triple of an answer whose label is ``label``; the rows of its neighbours are those of ``base``."""
    where = place or Place()
    ends = [
        (single_spaced(span.of(instance.text)), kind, Span(where.start + span.start, where.start + span.end))
        for span, kind in ((instance.head, instance.head_type), (instance.tail, instance.tail_type))
    ]
    relation, is_reversed = read_direction(label)
    (head, head_type, head_span), (tail, tail_type, tail_span) = ends[::-1] if is_reversed else ends
    passages = base.passages(list(answer.rows))
    neighbours = tuple(
        TripleEvidence(passage.id, passage.title, weight)
        for passage, weight in zip(passages, answer.weights, strict=True)
    )
    score = exp(answer.log_probability)
    text = Span(where.start, where.start + len(instance.text))
    source = TripleSource(instance.id, where.path, instance.text, text, head_span, tail_span, score, neighbours)
    return Triple(head, relation, tail, head_type, tail_type, score, instance.text, instance.id, neighbours, (source,))


def read_direction(label: str) -> tuple[str, bool]:
    """Return a label's relation, and whether it runs from the second entity to the first."""
    if not label.endswith(DIRECTIONS):
        return label, False
    parsed = parse_relation(label)
    return parsed.name, parsed.direction == DIRECTIONS[1]


def single_spaced(name: str) -> str:
    """Return a name with single spaces for any white space."""
    return " ".join(name.split())
