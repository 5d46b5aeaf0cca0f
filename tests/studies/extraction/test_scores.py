"""Precision and recall of triples and of pairs, counted by hand."""

from __future__ import annotations

import pytest

from retrograd.data.relations.instance import RelationInstance
from retrograd.metrics.triples import score_triples
from retrograd.studies.extraction.merging import EntityNames
from retrograd.studies.extraction.scores import GoldDocument, gold_documents, score_documents, score_pairs
from retrograd.studies.extraction.triples import Place, Triple, TripleSource
from retrograd.types import Span


def instance(
    text: str, head: str, tail: str, relation: str | None, types: tuple[str, str] = ("P", "P")
) -> RelationInstance:
    spans = [Span(text.index(name), text.index(name) + len(name)) for name in (head, tail)]
    return RelationInstance("1", text, spans[0], spans[1], relation, *types)


def triple(head: str, relation: str, tail: str, types: tuple[str, str] = ("P", "P")) -> Triple:
    return Triple(head, relation, tail, *types, 0.5, "…", "1")


def test_counts_are_summed_over_documents_with_gold_triples() -> None:
    gold = {"a": {(0, "r", 1), (1, "r", 2)}, "b": set(), "c": {(0, "r", 1)}}
    predicted = {"a": [(0, "r", 1), (0, "r", 1), (2, "r", 0)], "b": [(0, "s", 1)], "d": [(0, "r", 1)]}
    scores = score_triples(gold, predicted)
    assert (scores.correct, scores.guessed, scores.gold) == (1, 3, 3)
    assert scores.precision == scores.recall == pytest.approx(100 / 3)


def test_gold_documents_merge_mentions_and_turn_relations() -> None:
    text = "Ada Lovelace knew Bab. Lovelace wrote to Bab. Cyd did not."
    gold = gold_documents(
        [
            ("a", instance(text, "Ada Lovelace", "Bab", "knows(e1,e2)")),
            ("a", instance(text, "Lovelace", "Bab", "knows(e1,e2)")),  # the same triple
            ("a", instance(text, "Bab", "Cyd", "told(e2,e1)")),
            ("a", instance(text, "Ada Lovelace", "Cyd", "Other")),
            ("b", instance(text, "Ada Lovelace", "Cyd", "Other")),
        ],
        "Other",
    )
    (ada, bab, cyd) = range(3)
    assert gold["a"].triples == {(ada, "knows", bab), (cyd, "told", bab)}
    assert gold["a"].entities[ada] == (("Ada Lovelace", "P"), ("Lovelace", "P"))
    assert gold["b"].triples == set()


def test_triples_are_right_by_document_after_merging() -> None:
    """Gold: Ada knows Bab and is from Ulm, Cyd knows Bab. Found: the first twice, the last reversed, one of nobody."""
    entities = ((("Ada Lovelace", "P"), ("She", "P")), (("Bab", "P"),), (("Ulm", "C"),), (("Cyd", "P"),))
    gold = {"a": GoldDocument(entities, frozenset({(0, "knows", 1), (0, "from", 2), (3, "knows", 1)}))}
    found = [
        triple("Lovelace", "knows", "BAB"),  # a name of Ada's by rule 2
        triple("She", "knows", "Bab"),  # a mention that the gold entity has
        triple("Bab", "knows", "Cyd"),
        triple("Dan", "knows", "Bab"),
    ]
    names = [
        ("Lovelace", "P"),
        ("Ada Lovelace", "P"),
        ("BAB", "P"),
        ("Bab", "P"),
        ("She", "P"),
        ("Cyd", "P"),
        ("Dan", "P"),
    ]
    scores = score_documents(gold, [("a", one) for one in found] + [("b", found[0])], {"a": EntityNames.of(names)})
    assert (scores.correct, scores.guessed, scores.gold) == (1, 3, 3)
    assert scores.f1 == pytest.approx(100 / 3)


def test_a_name_of_several_entities_is_the_one_of_its_type() -> None:
    entities = ((("Paris", "PERSON"),), (("Paris", "CITY"),), (("Troy", "CITY"),))
    gold = {"a": GoldDocument(entities, frozenset({(1, "near", 2)}))}
    names = EntityNames.of([("Paris", "CITY"), ("Troy", "CITY")])
    right = [("a", triple("Paris", "near", "Troy", ("CITY", "CITY")))]
    assert score_documents(gold, right, {"a": names}).correct == 1
    other_type = [("a", triple("Troy", "near", "Paris", ("PLACE", "PLACE")))]
    assert score_documents(gold, other_type, {"a": names}).correct == 0


def test_pairs_are_right_to_the_character() -> None:
    text = "Ada knew Bab, and Cyd knew Bab."
    gold = [
        ("f", instance(text, "Ada", "Bab", "knows(e1,e2)")),
        ("f", instance(text, "Cyd", "Ada", "told(e2,e1)")),
        ("f", instance(text, "Cyd", "Bab", "Other")),
    ]

    def found(relation: str, head: Span, tail: Span, path: str = "f") -> tuple[Place, Triple]:
        source = TripleSource("1", path, text, Span(0, len(text)), head, tail, 0.5)
        return Place("file", text, 0, path), Triple("x", relation, "y", "", "", 0.5, text, "1", (), (source,))

    ada, bab, cyd = Span(0, 3), Span(9, 12), Span(18, 21)
    triples = [
        found("knows", ada, bab),
        found("told", ada, cyd),  # the gold label runs from the second to the first
        found("knows", cyd, bab),
        found("knows", Span(0, 4), bab),
        found("knows", ada, bab, "g"),
    ]
    scores = score_pairs(gold, triples, "Other")
    assert (scores.correct, scores.guessed, scores.gold) == (2, 5, 2)
