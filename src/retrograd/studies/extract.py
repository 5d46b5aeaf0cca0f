"""Triples of a knowledge graph from text, with a score and their origin."""

from __future__ import annotations

from dataclasses import dataclass
from math import exp
from pathlib import Path

from retrograd.data.relations.instance import RelationInstance
from retrograd.evaluation.evaluate import predict
from retrograd.experiments.data.source import relation_extraction
from retrograd.experiments.open import open_run
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.metrics.relations import DIRECTIONS, parse_relation
from retrograd.models.generator import Generator
from retrograd.types import Prediction, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.records import record_mapping

__all__ = ["Triple", "TripleEvidence", "extract", "make_triple"]


@dataclass(frozen=True)
class TripleEvidence:
    """A training instance that was read: its id, its label's phrase, its weight p(z|x, answer)."""

    id: str
    label: str
    weight: float


@dataclass(frozen=True)
class Triple:
    """A relation between two entities: ``head`` stands in ``relation`` to ``tail``.

    Directed labels are turned so that the relation runs this way. Names have single spaces where the text has any white
    space.

    Names have single spaces where the text has any white space.

    ``score`` is the probability of the answer among those permitted, as the model decides. ``sentence`` and ``id`` are
    where it was read, ``neighbours`` what was read beside it.
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

    def record(self) -> JsonObject:
        """Return the triple as a line of JSON."""
        return record_mapping(self)


def extract(run: Path, data: Path, threshold: float = 0.0) -> tuple[list[Triple], int]:
    """Return the triples of ``data`` whose score is at least ``threshold``, and the number of pairs of entities that
    were classified.

    ``data`` holds marked pairs in any format that training reads, or text with ``entities`` of which all pairs are
    asked. The negative relation makes no triple. Raises `UserError` for a threshold that is no probability, a run that
    is none, and files as the readers do.
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold is {threshold:g}; expected a probability, from 0 to 1")
    opened = open_run(run)
    task, settings = relation_extraction(opened.task, "extract"), opened.experiment
    pairs = settings.data.read_pairs(data, task)
    examples = [example for _, example in pairs]
    answers = predict(opened.model, examples, settings.test_passages, settings.evaluation.scoring)
    _warn_of_cuts(opened.model.generator)
    triples = [
        make_triple(instance, relation, answer, opened.model.base)
        for (instance, example), answer in zip(pairs, answers, strict=True)
        if (relation := task.read_answer(answer.answer, example).label) is not None
        and relation != task.negative
        and exp(answer.log_probability) >= threshold
    ]
    return triples, len(pairs)


def _warn_of_cuts(generator: Generator) -> None:
    prompts = generator.prompt_tokens
    if prompts.cut:
        say(
            f"{prompts.cut} of {prompts.read} prompts were longer than {generator.options.max_input_tokens} tokens and "
            f"lost their end, perhaps an entity with it; split the text into sentences"
        )


def make_triple(instance: RelationInstance, label: str, answer: Prediction, base: KnowledgeBase) -> Triple:
    """Return the triple of an answer whose label is ``label``; the rows of its neighbours are those of ``base``."""
    ends = [
        (" ".join(span.of(instance.text).split()), kind)
        for span, kind in ((instance.head, instance.head_type), (instance.tail, instance.tail_type))
    ]
    relation = label
    if label.endswith(DIRECTIONS):
        parsed = parse_relation(label)
        relation = parsed.name
        ends = ends[::-1] if parsed.direction == DIRECTIONS[1] else ends
    (head, head_type), (tail, tail_type) = ends
    passages = base.passages(list(answer.rows))
    neighbours = tuple(
        TripleEvidence(passage.id, passage.title, weight)
        for passage, weight in zip(passages, answer.weights, strict=True)
    )
    score = exp(answer.log_probability)
    return Triple(head, relation, tail, head_type, tail_type, score, instance.text, instance.id, neighbours)
