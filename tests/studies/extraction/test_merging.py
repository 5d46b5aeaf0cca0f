"""Mentions of one entity are merged by the stated rule, and equal triples with them."""

from __future__ import annotations

import pytest

from retrograd.studies.extraction.merging import EntityNames, join_documents, merge_triples, name_words
from retrograd.studies.extraction.triples import Triple, TripleSource
from retrograd.types import Span


def entities(*names: str, kind: str = "PERSON") -> dict[str, str]:
    """The entity of each name, where all are of one type."""
    return {name: whole for (name, _), whole in EntityNames.of((name, kind) for name in names).names.items()}


@pytest.mark.parametrize(
    ("first", "second", "is_equal"),
    [
        ("Pelham Press", "PELHAM  PRESS,", True),
        ("O’Neil-Smith", "O'Neil Smith", True),
        ("Straße", "STRASSE", True),
        ("Ａｄａ", "Ada", True),
        ("C++", "C", False),
        ("C#", "C", False),
        ("A & B", "A B", False),
        ("東京", "東 京", True),
        ("U.S.", "US", False),
        ("…", "...", False),
    ],
)
def test_names_are_compared_without_case_space_and_punctuation(first: str, second: str, is_equal: bool) -> None:
    assert (name_words(first) == name_words(second)) == is_equal


def test_equal_names_of_a_type_are_one_called_as_it_is_mostly_written() -> None:
    assert entities("ADA", "Ada", "Ada", "ada.") == {"ADA": "Ada", "Ada": "Ada", "ada.": "Ada"}
    assert entities("Bob", "BOB") == {"Bob": "Bob", "BOB": "Bob"}  # the first of equally frequent ones
    both = EntityNames.of([("Paris", "CITY"), ("PARIS", "PERSON")])
    assert both.of_entity("PARIS", "PERSON") == "PARIS"
    assert not both.are_one(("Paris", "CITY"), ("PARIS", "PERSON"))


def test_a_part_of_exactly_one_longer_name_is_that_entity() -> None:
    assert entities("Lovelace", "Ada Lovelace", "Ada") == dict.fromkeys(
        ["Lovelace", "Ada Lovelace", "Ada"], "Ada Lovelace"
    )
    # Two longer ones: whose it is is not known.
    assert entities("Lovelace", "Ada Lovelace", "King Lovelace")["Lovelace"] == "Lovelace"
    # Of a chain only the longest counts, and all are it.
    chain = entities("Lovelace", "Ada Lovelace", "Lady Ada Lovelace")
    assert set(chain.values()) == {"Lady Ada Lovelace"}
    # One is a part of both, and the other of one.
    two = entities("Press", "Pelham Press", "Pelham Press Leeds", "Garner Press")
    assert two["Press"] == "Press"
    assert two["Pelham Press"] == "Pelham Press Leeds"


@pytest.mark.parametrize("longer", ["Adam Smith", "Smithson Ada", "Ada and Smith"])
def test_parts_are_whole_words_in_a_row(longer: str) -> None:
    assert entities("Ada Smith", longer)["Ada Smith"] == "Ada Smith"


def test_parts_are_of_the_same_type() -> None:
    names = EntityNames.of([("York", "CITY"), ("York Press", "COMPANY"), ("Leeds", ""), ("Leeds Press", "COMPANY")])
    assert all(name == whole for (name, _), whole in names.names.items())


def triple(head: str, tail: str, score: float, document: str = "a.txt", relation: str = "holds") -> Triple:
    source = TripleSource(f"{document}:{score}", document, "…", Span(0, 9), Span(0, 3), Span(4, 7), score)
    return Triple(head, relation, tail, "X", "Y", score, "…", source.id, (), (source,))


def documents(**mentions: list[tuple[str, str]]) -> dict[str, EntityNames]:
    return {f"{name}.txt": EntityNames.of(own) for name, own in mentions.items()}


def test_equal_triples_keep_the_best_score_and_all_sources() -> None:
    known = documents(a=[("cup", "X"), ("CUP", "X"), ("tea", "Y"), ("green tea", "Y")])
    triples = [triple("cup", "tea", 0.3), triple("CUP", "green tea", 0.9), triple("cup", "tea", 0.5, relation="is")]
    merged = merge_triples([("a.txt", one) for one in triples], known, "document")
    assert [(one.head, one.relation, one.tail, one.score) for one in merged] == [
        ("cup", "holds", "green tea", 0.9),
        ("cup", "is", "green tea", 0.5),
    ]
    assert merged[0].id == triples[1].id
    assert [source.score for source in merged[0].sources] == [0.9, 0.3]
    assert merge_triples([("a.txt", one) for one in triples], known, "none") == triples


def test_across_documents_only_equal_names_are_one() -> None:
    known = documents(
        a=[("Ada Lovelace", "X"), ("Lovelace", "X"), ("tea", "Y")],
        b=[("ADA LOVELACE", "X"), ("tea", "Y")],
        c=[("Lovelace", "X"), ("Ada Lovelace ", "Z"), ("tea", "Y")],
        d=[("Ada Lovelace", "X"), ("tea", "Y")],
    )
    joined = join_documents(known)
    assert joined["a.txt"].of_entity("Lovelace", "X") == "Ada Lovelace"
    assert joined["b.txt"].of_entity("ADA LOVELACE", "X") == "Ada Lovelace"  # as most documents call her
    assert joined["c.txt"].of_entity("Lovelace", "X") == "Lovelace"
    triples = [("a.txt", triple("Lovelace", "tea", 0.2)), ("b.txt", triple("ADA LOVELACE", "tea", 0.4, "b.txt"))]
    (whole,) = merge_triples(triples, joined, "all")
    assert (whole.head, [source.document for source in whole.sources]) == ("Ada Lovelace", ["b.txt", "a.txt"])
    apart = merge_triples(triples, known, "document")
    assert [one.head for one in apart] == ["Ada Lovelace", "ADA LOVELACE"]


def test_a_triple_of_two_names_of_one_entity_keeps_them() -> None:
    known = documents(a=[("Ada", "P"), ("Ada Lovelace", "P")])
    own = Triple("Ada", "also called", "Ada Lovelace", "P", "P", 0.5, "…", "1")
    assert merge_triples([("a.txt", own)], known, "document") == [own]
