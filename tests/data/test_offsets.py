"""Offsets that other languages count, and spans that are no whole words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

import retrograd as rg
from retrograd.data.masking import read_spans
from retrograd.data.offsets import OFFSETS, Offsets, SpanCheck, read_offsets
from retrograd.data.relations.entity_pairs import read_entity_pairs
from retrograd.data.relations.formats import read_relations
from retrograd.metrics.words import cuts_word
from retrograd.types import Passage, Span, UserError

TEXT = "Zoé 😀 wrote 👩🏽‍🚀 to Bab ."
ENCODINGS = {"utf-16": ("utf-16-le", 2), "utf-8": ("utf-8", 1), "characters": ("utf-32-le", 4)}


def counted(text: str, span: Span, offsets: str) -> list[int]:
    """The offsets that another tool writes: of what it holds the text in, not of characters."""
    encoding, size = ENCODINGS[offsets]
    return [len(text[:place].encode(encoding)) // size for place in (span.start, span.end)]


def span_of(words: str, text: str = TEXT) -> Span:
    return Span(text.index(words), text.index(words) + len(words))


@given(st.text(st.characters(exclude_categories=["Cs"])), st.integers(0, 50), st.integers(0, 50))
def test_offsets_of_every_unit_are_read_back(text: str, first: int, length: int) -> None:
    start = min(first, len(text))
    span = Span(start, min(start + length, len(text)))
    for offsets in OFFSETS:
        start, end = counted(text, span, offsets)
        assert read_offsets(text, (start, end), offsets, "head") == span


def test_a_lone_surrogate_is_one_unit() -> None:
    assert read_offsets("a\ud83d b", (3, 4), "utf-16", "head") == Span(3, 4)


@pytest.mark.parametrize("offsets", get_args(Offsets))
class TestReaders:
    def test_records(self, offsets: Offsets) -> None:
        head, tail = (counted(TEXT, span_of(name), offsets) for name in ("Zoé", "Bab"))
        (instance,) = rg.read_relations([{"text": TEXT, "head": head, "tail": tail}], offsets=offsets)
        assert (instance.head.of(TEXT), instance.tail.of(TEXT)) == ("Zoé", "Bab")

    def test_files(self, offsets: Offsets, tmp_path: Path) -> None:
        head, tail = (counted(TEXT, span_of(name), offsets) for name in ("Zoé", "Bab"))
        (path := tmp_path / "a.jsonl").write_text(json.dumps({"text": TEXT, "head": head, "tail": tail}), "utf-8")
        for read in (rg.read_relations(path, offsets=offsets), list(read_relations(path, offsets=offsets))):
            assert [(one.head.of(TEXT), one.tail.of(TEXT)) for one in read] == [("Zoé", "Bab")]

    def test_entities(self, offsets: Offsets, tmp_path: Path) -> None:
        pairs = [counted(TEXT, span_of(name), offsets) for name in ("Zoé", "Bab")]
        record = {"text": TEXT, "entities": [{"start": start, "end": end} for start, end in pairs]}
        (path := tmp_path / "a.jsonl").write_text(json.dumps(record), "utf-8")
        (pair,) = read_entity_pairs(path, both_orders=False, offsets=offsets)
        assert (pair.head.of(TEXT), pair.tail.of(TEXT)) == ("Zoé", "Bab")

    def test_spans_to_be_masked(self, offsets: Offsets, tmp_path: Path) -> None:
        record = {"id": "p", "spans": [counted(TEXT, span_of("Bab"), offsets)]}
        (path := tmp_path / "spans.jsonl").write_text(json.dumps(record), "utf-8")
        ((start, end),) = read_spans(path, offsets)(Passage("p", "", TEXT))
        assert TEXT[start:end] == "Bab"


@pytest.mark.parametrize(
    ("pair", "offsets", "message"),
    [
        ((0, 99), "utf-16", r"head \[0, 99\) lies outside the text of 29 UTF-16 code units; .*exclusive"),
        ((-1, 3), "utf-8", r"head \[-1, 3\) lies outside the text of 40 bytes of UTF-8; .*exclusive"),
        ((4, 5), "utf-16", r"begins or ends inside the character '😀', as offsets count UTF-16 .*set \"offsets\""),
        ((3, 5), "utf-8", r"begins or ends inside the character 'é', as offsets count bytes"),
    ],
)
def test_offsets_that_no_character_has(pair: tuple[int, int], offsets: Offsets, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_offsets(TEXT, pair, offsets, "head")


def test_a_unit_that_there_is_not() -> None:
    with pytest.raises(UserError, match=r"unknown unit of offsets 'utf-61'; did you mean 'utf-16'"):
        rg.read_relations([], offsets="utf-61")


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("a cup, p53's", {3, 4, 8, 9}),
        ("snake_case x-ray", {*range(1, 10), 14, 15}),
        ("हिन्दी", {1, 2, 3, 4, 5}),
        ("東京都", set()),
        ("กำ", set()),
        ("👩🏽‍🚀 x", {1, 2, 3}),
        ("e\u0301a", {1, 2}),
        ("", set()),
    ],
)
def test_positions_inside_words(text: str, inside: set[int]) -> None:
    assert {place for place in range(len(text) + 1) if cuts_word(text, place)} == inside


class TestSpanCheck:
    def found(self, pairs: list[tuple[int, int]], offsets: Offsets = "characters", text: str = TEXT) -> SpanCheck:
        check = SpanCheck("data.offsets", offsets)
        for pair in pairs:
            check.add("f.jsonl, id 'a'", "head", text, Span(*pair))
        return check

    def test_words_are_whole(self) -> None:
        check = self.found([(0, 3), (4, 5), (12, 16), (20, 23), (0, 23)])
        assert (check.spans, check.odd, check.first) == (5, 0, None)

    @pytest.mark.parametrize("offsets", ["utf-16", "utf-8"])
    def test_offsets_of_another_unit(self, offsets: str) -> None:
        start, end = counted(text := "😀 Zoé wrote to Babette", span_of("wrote", text), offsets)
        what, remedy = self.found([(start, end), (0, 1)], text=text).message()
        assert "head [" in what
        assert "side a word" in what or "on a space" in what
        assert f'set data.offsets = "{offsets}" (1 of 1 are whole words then)' in remedy

    def test_offsets_of_characters_read_as_another_unit(self) -> None:
        text = "é the cup holds"
        pair = read_offsets(text, (6, 9), "utf-8", "head")  # "cup", counted in characters
        check = self.found([(pair.start, pair.end)], "utf-8", text)
        assert 'set data.offsets = "characters"' in check.message()[1]

    @pytest.mark.parametrize(
        ("pair", "remedy"),
        [
            ((4, 6), "add 1 to every end"),
            ((5, 8), "subtract 1 from every offset"),
            ((5, 7), "subtract 1 from every start"),
        ],
    )
    def test_inclusive_ends_and_offsets_from_one(self, pair: tuple[int, int], remedy: str) -> None:
        assert remedy in self.found([pair], text="the cup holds").message()[1]

    def test_the_first_of_many(self) -> None:
        what, remedy = self.found([(0, 2), (0, 3), (0, 1), (3, 5)]).message()
        assert what.startswith("head [0, 2) is 'Zo' of 'Zoé 😀 wrote ' and ends inside a word; so do 2 more of 4 spans")
        assert remedy.startswith("add 1 to every end: the end is exclusive (1 of 3")

    def test_parts_of_words_that_are_meant(self) -> None:
        assert "unless such a part of a word is meant" in self.found([(2, 4)], text="unbreakable").message()[1]
