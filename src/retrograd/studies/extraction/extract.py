"""A knowledge graph from text: pairs of entities are read, classified, and merged into triples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp
from pathlib import Path

from retrograd.data.relations.recognisers.kinds import NamedRecogniser, find_recogniser
from retrograd.data.relations.recognisers.recogniser import FindEntities, FunctionRecogniser, Recogniser
from retrograd.data.relations.text_pairs import parse_window
from retrograd.evaluation.evaluate import predict
from retrograd.experiments.data.source import relation_extraction
from retrograd.experiments.from_python import Run
from retrograd.experiments.open import OpenRun, open_run
from retrograd.models.generator import Generator
from retrograd.studies.extraction.merging import join_documents, known_merge, merge_triples
from retrograd.studies.extraction.scores import ExtractionScores, score_documents, score_pairs
from retrograd.studies.extraction.sources import AskedPair, Pairing, PairReading, read_file_pairs, read_text_pairs
from retrograd.studies.extraction.triples import Place, Triple, make_triple
from retrograd.studies.extraction.type_pairs import TypePairs, training_types
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import UserError
from retrograd.util.progress import say

__all__ = ["Extraction", "extract"]


@dataclass(frozen=True)
class Extraction:
    """Triples, the number of pairs of entities that were classified for them, and of documents with any entity.

    ``scores`` are against the gold relations of the files, None where they have none. ``takes_all`` says that the task
    has no negative label: each pair becomes a triple.
    """

    triples: list[Triple]
    pairs: int
    documents: int
    scores: ExtractionScores | None = None
    takes_all: bool = False


def extract(
    run: Run | str | Path,
    data: str | Path | Sequence[str | Path],
    recogniser: str | Recogniser | FindEntities | None = None,
    pairing: Pairing | None = None,
    threshold: float = 0.0,
    merge: str = "document",
) -> Extraction:
    """Return the triples of ``data`` whose score is at least ``threshold``, as a finished run finds them.

    ``data`` holds marked pairs in any format that training reads, or text with ``entities``, of which all pairs are
    asked. With a ``recogniser`` it is plain text, as files or folders, whose entities are recognised and paired as
    ``pairing`` says; of other files the texts alone are read. A recogniser is named as in ``spacy:en_core_web_sm``
    (`retrograd.data.relations.recognisers.kinds`), or a function of one's own, which returns (start, end, type) of each
    entity of a text.

    ``merge`` "document" merges the mentions of an entity, and equal triples, in a document, "all" in all documents,
    "none" nowhere (`retrograd.studies.extraction.merging`). The negative relation makes no triple.

    Raises `UserError` for a threshold that is no probability, a run that is none, an unknown recogniser, and files as
    the readers do.

    Example::

        def find(text):  # a function of your own; or name one: recogniser="spacy:en_core_web_sm"
            return [(text.index(name), text.index(name) + len(name), "") for name in ("cup", "tea") if name in text]

        found = rg.extract("runs/relations", "page.txt", find)
        for triple in found.triples:
            print(triple.head, triple.relation, triple.tail, triple.score, triple.sources[0].head)
    """
    if not 0 <= threshold <= 1:
        raise UserError(f"--threshold is {threshold:g}; expected a probability, from 0 to 1")
    merging, own_pairing = known_merge(merge), pairing or Pairing()
    parse_window(own_pairing.within)
    named = find_recogniser(recogniser) if isinstance(recogniser, str) else recogniser
    paths = [Path(one) for one in ([data] if isinstance(data, str | Path) else data)]
    opened = open_run(run.path if isinstance(run, Run) else Path(run))
    task = relation_extraction(opened.task, "extract")
    if named is None:
        reading = read_file_pairs(opened, task, paths)
    else:
        needs_types = isinstance(named, NamedRecogniser) and named.kind.asks_for_types
        all_pairs = own_pairing.any_pair and not needs_types
        permitted = TypePairs(frozenset()) if all_pairs else training_types(opened, task)
        tool = _open_recogniser(named, own_pairing, permitted)
        reading = read_text_pairs(opened, task, paths, tool, own_pairing, permitted, merging)
    triples = _classify(opened, task, reading.pairs, threshold)
    scores = _score(task, reading, triples)
    documents = join_documents(reading.documents) if merging == "all" else reading.documents
    merged = merge_triples([(place.document, triple) for place, triple in triples], documents, merging)
    with_entities = sum(bool(entities.names) for entities in documents.values())
    return Extraction(merged, len(reading.pairs), with_entities, scores, takes_all=task.negative is None)


def _open_recogniser(
    named: NamedRecogniser | Recogniser | FindEntities, pairing: Pairing, permitted: TypePairs
) -> Recogniser:
    if isinstance(named, NamedRecogniser):
        renamed = set(pairing.types.values())
        return named.open([*pairing.types, *(kind for kind in permitted.types if kind not in renamed)])
    if isinstance(named, Recogniser):
        return named
    return FunctionRecogniser(named)


def _classify(
    opened: OpenRun, task: RelationExtraction, pairs: Sequence[AskedPair], threshold: float
) -> list[tuple[Place, Triple]]:
    """Return the triple of every pair that stands in a relation."""
    settings = opened.experiment
    examples = [pair.example for pair in pairs]
    answers = predict(opened.model, examples, settings.test_passages, settings.evaluation.scoring)
    _warn_of_cuts(opened.model.generator)
    return [
        (pair.place, make_triple(pair.instance, relation, answer, opened.model.base, pair.place))
        for pair, answer in zip(pairs, answers, strict=True)
        if (relation := task.read_answer(answer.answer, pair.example).label) is not None
        and relation != task.negative
        and exp(answer.log_probability) >= threshold
    ]


def _warn_of_cuts(generator: Generator) -> None:
    prompts = generator.prompt_tokens
    if prompts.cut:
        say(
            f"{prompts.cut} of {prompts.read} prompts were longer than {generator.options.max_input_tokens} tokens and "
            f"lost their end, perhaps an entity with it; split the text into sentences"
        )


def _score(
    task: RelationExtraction, reading: PairReading, triples: Sequence[tuple[Place, Triple]]
) -> ExtractionScores | None:
    if not reading.gold:
        return None
    by_document = [(place.document, triple) for place, triple in triples]
    pairs = None if reading.gold_pairs is None else score_pairs(reading.gold_pairs, triples, task.negative)
    return ExtractionScores(score_documents(reading.gold, by_document, reading.documents), pairs, len(reading.gold))
