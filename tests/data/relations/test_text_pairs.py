"""Texts, their sentences, and the pairs of entities in them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.data.relations.text_documents import TextDocument, list_text_files, read_text_document
from retrograd.data.relations.text_pairs import MOST_BETWEEN, Window, find_sentences, pair_entities, parse_window
from retrograd.types import Span, UserError


def entities_of(text: str, *names: str) -> list[Entity]:
    """The first mention of each name; a name is its own type."""
    return [Entity(Span(text.index(name), text.index(name) + len(name)), name) for name in names]


def pairs(text: str, window: str, *names: str, both_orders: bool = False) -> list[tuple[str, str, str]]:
    """Head, tail and text of every pair; checks that offsets and types are those of the document."""
    document = TextDocument.plain("page", text)
    sentences = find_sentences(document, Recognised(()), "en")
    found = []
    entities = entities_of(text, *names)
    for pair in pair_entities(document, entities, sentences, parse_window(window), both_orders):
        one = pair.instance
        head, tail = (Span(span.start + pair.start, span.end + pair.start) for span in (one.head, one.tail))
        assert text[pair.start : pair.start + len(one.text)] == one.text
        assert (head.of(text), tail.of(text)) == (one.head_type, one.tail_type)
        assert one.id == f"page:{head.start},{head.end}-{tail.start},{tail.end}"
        found.append((one.head_type, one.tail_type, one.text))
    return found


TEXT = "Ada met Bob. It rained. Cyd left Rome."


def test_pairs_lie_in_one_sentence() -> None:
    assert pairs(TEXT, "sentence", "Ada", "Bob", "Cyd", "Rome") == [
        ("Ada", "Bob", "Ada met Bob."),
        ("Cyd", "Rome", "Cyd left Rome."),
    ]
    assert pairs(TEXT, "1", "Ada", "Bob") == pairs(TEXT, "sentence", "Bob", "Ada")
    assert [one[:2] for one in pairs(TEXT, "sentence", "Ada", "Bob", both_orders=True)] == [
        ("Ada", "Bob"),
        ("Bob", "Ada"),
    ]


def test_a_window_of_sentences_reads_from_the_one_to_the_other() -> None:
    assert pairs(TEXT, "2", "Ada", "Cyd") == []
    assert pairs(TEXT, "3 sentences", "Ada", "Cyd") == [("Ada", "Cyd", TEXT)]
    assert pairs("A b. " + TEXT + " X y.", "3", "Bob", "Rome") == [("Bob", "Rome", TEXT)]


def test_a_window_of_words_needs_no_sentences() -> None:
    text = "one two Ada three four Bob five six seven"
    assert pairs(text, "3 words", "Ada", "Bob") == []
    assert pairs(text, "4 words", "Ada", "Bob") == [("Ada", "Bob", "Ada three four Bob")]
    assert pairs(text, "7 words", "Ada", "Bob") == [("Ada", "Bob", "two Ada three four Bob five six")]
    assert pairs(text, "99 words", "Ada", "Bob") == [("Ada", "Bob", text)]


def test_entities_may_lie_inside_others_but_not_across() -> None:
    text = "the king of Spain's sister"
    names = ("king of Spain", "Spain", "Spain's sister")
    assert [one[:2] for one in pairs(text, "sentence", *names)] == [
        ("king of Spain", "Spain"),
        ("Spain", "Spain's sister"),
    ]
    document = TextDocument.plain("page", text)
    twice = [Entity(Span(4, 8), "first"), Entity(Span(4, 8), "second"), Entity(Span(12, 17), "S")]
    (pair,) = pair_entities(document, twice, [Span(0, len(text))], Window(), both_orders=False)
    assert (pair.instance.head_type, pair.instance.tail_type) == ("first", "S")


def test_entities_far_apart_are_no_pair() -> None:
    text = " ".join(f"name{i:02}" for i in range(MOST_BETWEEN + 3))
    names = text.split()
    found = {one[:2] for one in pairs(text, "sentence", *names)}
    assert (names[0], names[MOST_BETWEEN + 1]) in found
    assert (names[0], names[MOST_BETWEEN + 2]) not in found


@pytest.mark.parametrize("text", ["", "0", "-1", "two", "3 lines", "3  words", "1.5", "9999999", "sentences"])
def test_a_window_is_a_number_of_sentences_or_words(text: str) -> None:
    with pytest.raises(UserError, match="expected sentence, a number of sentences such as 3, or one of words"):
        parse_window(text)


def test_markdown_has_blocks_that_no_sentence_crosses(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# Ada Lovelace\nShe wrote\nto *Bab*. He replied.\n\n- one cup\n- two\n  cups\n\n"
        "| a | b |\n| c | d |\n> said\n",
        encoding="utf-8",
    )
    document = read_text_document(page)
    sentences = [one.of(document.text) for one in find_sentences(document, Recognised(()), "en")]
    assert sentences == [
        "Ada Lovelace",
        "She wrote\nto *Bab*.",
        "He replied.",
        "one cup",
        "two\n  cups",
        "a | b |",
        "c | d |",
        "said",
    ]
    whole = Recognised((), (Span(0, len(document.text)),))  # a pipeline that takes all of it for one sentence
    cut = [one.of(document.text) for one in find_sentences(document, whole, "")]
    assert cut == ["Ada Lovelace", "She wrote\nto *Bab*. He replied.", *sentences[3:]]
    page.rename(tmp_path / "page.txt")
    plain = read_text_document(tmp_path / "page.txt")
    assert find_sentences(plain, Recognised(()), "en")[0].of(plain.text) == "# Ada Lovelace\nShe wrote\nto *Bab*."


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfAda \xe2\x98\x95\r\nmet\rBob",
        "Ada ☕\nmet\nBob".encode("utf-16"),
        gzip.compress("Ada ☕\nmet\nBob".encode()),
    ],
    ids=["mark and line ends", "UTF-16", "gzip"],
)
def test_texts_are_decoded_as_they_come(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "page.txt").write_bytes(content)
    assert read_text_document(tmp_path / "page.txt").text == "Ada ☕\nmet\nBob"


def test_the_texts_of_a_folder_are_in_order_and_what_is_no_text_is_refused(tmp_path: Path) -> None:
    for name in ("b.md", "a.txt", "deep/c.MARKDOWN", "notes.pdf", ".git/d.txt", "deep/.e.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"%PDF-1.4" if name == "notes.pdf" else b"Ada")
    names = [str(one.relative_to(tmp_path)) for one in list_text_files(tmp_path)]
    assert names == ["a.txt", "b.md", "deep/c.MARKDOWN"]
    assert list_text_files(tmp_path / "a.txt") == [tmp_path / "a.txt"]
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.4")
    with pytest.raises(UserError, match=r"a\.txt is a PDF"):
        read_text_document(tmp_path / "a.txt")
    with pytest.raises(UserError, match=r"no such file: .*gone\.txt"):
        read_text_document(tmp_path / "gone.txt")
