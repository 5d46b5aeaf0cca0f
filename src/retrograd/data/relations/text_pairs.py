"""Pairs of recognised entities of plain text: the two lie in one sentence, or in a window of sentences or words.

The text of a pair, which a model reads, is the sentences from the first entity to the other or, in a window of words,
that many words around the two. Equal spans are one entity, the first of them; a pair that overlaps in part is left out.
In a window with more than `MOST_BETWEEN` entities between the two a pair is left out, too: their number would explode.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.data.relations.text_documents import TextDocument
from retrograd.data.sentences import sentence_spans
from retrograd.metrics.words import token_spans
from retrograd.types import Span, UserError

__all__ = [
    "MOST_BETWEEN",
    "RULE_LANGUAGES",
    "SentenceEnds",
    "TextPair",
    "Window",
    "find_sentences",
    "pair_entities",
    "parse_window",
]

MOST_BETWEEN = 20
"""A pair of entities that stand more than so many entities apart is left out."""

RULE_LANGUAGES = ("en",)
"""Languages whose sentence ends `retrograd.data.sentences` finds by its rule."""

SentenceEnds = Callable[[str], Iterable[tuple[int, int]]]
"""A function that returns the characters [start, end) of every sentence of a text, in order."""

_WINDOW = re.compile(r"([1-9]\d{0,5})(?: (sentences?|words?))?")


@dataclass(frozen=True)
class Window:
    """How far apart two entities may stand: within ``size`` neighbouring sentences, or ``size`` words."""

    size: int = 1
    unit: Literal["sentences", "words"] = "sentences"


def parse_window(text: str) -> Window:
    """Return the window of ``sentence``, ``3`` or ``3 sentences``, or ``40 words``. Raises `UserError` for others."""
    if text == "sentence":
        return Window()
    match = _WINDOW.fullmatch(text)
    if match is None:
        raise UserError(
            f"--within {text}: expected sentence, a number of sentences such as 3, or one of words: '40 words'"
        )
    is_words = match[2] is not None and match[2].startswith("word")
    return Window(int(match[1]), "words" if is_words else "sentences")


@dataclass(frozen=True, slots=True)
class TextPair:
    """A pair of entities as an instance without a relation, and where its text begins in the document."""

    instance: RelationInstance
    start: int


def find_sentences(
    document: TextDocument, recognised: Recognised, language: str, own: SentenceEnds | None = None
) -> list[Span]:
    """Return the sentences of a document: those that a function of one's ``own`` finds, else those of its file, else
    those of the recogniser, else those of the rule for the language.

    Raises `UserError` for a language that there is no rule for.
    """
    if own is not None:
        return _check_sentences([Span(*pair) for pair in own(document.text)], len(document.text))
    if document.sentences is not None:
        return list(document.sentences)
    if recognised.sentences is not None:
        return list(_cut_at_blocks(recognised.sentences, document))
    if language not in RULE_LANGUAGES:
        raise UserError(
            f"no rule finds the sentence ends of language {language!r}; there is one for {', '.join(RULE_LANGUAGES)} "
            f"(--language). Take a spaCy pipeline that finds sentences, a window of words (--within '40 words'), or in "
            f"Python a function of your own (sentences=…)"
        )
    return [
        Span(block.start + start, block.start + end)
        for block in document.blocks
        for start, end in sentence_spans(block.of(document.text))
    ]


def _check_sentences(sentences: list[Span], length: int) -> list[Span]:
    end = 0
    for sentence in sentences:
        if not end <= sentence.start < sentence.end <= length:
            raise UserError(
                f"the sentence {sentence} of your function is empty, overlaps the one before, or lies outside the text "
                f"of {length} characters; expected characters [start, end) in order"
            )
        end = sentence.end
    return sentences


def _cut_at_blocks(sentences: Sequence[Span], document: TextDocument) -> Iterator[Span]:
    """Yield the parts of sentences in each block, without white space around them."""
    place = 0
    for block in document.blocks:
        while place < len(sentences) and sentences[place].end <= block.start:
            place += 1
        following = place
        while following < len(sentences) and sentences[following].start < block.end:
            sentence = sentences[following]
            start, end = max(sentence.start, block.start), min(sentence.end, block.end)
            words = document.text[start:end]
            if words.strip():
                yield Span(start + len(words) - len(words.lstrip()), end - len(words) + len(words.rstrip()))
            following += 1


def pair_entities(
    document: TextDocument, entities: Sequence[Entity], sentences: Sequence[Span], window: Window, both_orders: bool
) -> Iterator[TextPair]:
    """Yield every pair of entities within the window; ``both_orders`` makes each of a pair the head once, otherwise it
    is the one that stands first.

    The id names the document and the characters of both: ``page.txt:0,3-9,13``.
    """
    unique: dict[Span, Entity] = {}
    for entity in entities:
        unique.setdefault(entity.span, entity)
    ordered = sorted(unique.values(), key=lambda entity: (entity.span.start, entity.span.end))
    find_text = _sentence_texts(sentences, window.size) if window.unit == "sentences" else None
    tokens = list(token_spans(document.text)) if find_text is None else []
    find = find_text or _word_texts(tokens, window.size)
    for place, first in enumerate(ordered):
        for second in ordered[place + 1 : place + 2 + MOST_BETWEEN]:
            outer = Span(first.span.start, max(first.span.end, second.span.end))
            around = find(outer)
            if around is None or first.span.start < second.span.start < first.span.end < second.span.end:
                continue
            for head, tail in ((first, second), (second, first)) if both_orders else ((first, second),):
                yield _make_pair(document, around, head, tail)


def _make_pair(document: TextDocument, around: Span, head: Entity, tail: Entity) -> TextPair:
    spans = [Span(one.span.start - around.start, one.span.end - around.start) for one in (head, tail)]
    places = "-".join(f"{one.span.start},{one.span.end}" for one in (head, tail))
    text = around.of(document.text)
    instance = RelationInstance(f"{document.id}:{places}", text, spans[0], spans[1], None, head.kind, tail.kind)
    return TextPair(instance, around.start)


_FindText = Callable[[Span], Span | None]
"""Return the text of a pair, which goes from the first character of the one to the last of the other, or None."""


def _sentence_texts(sentences: Sequence[Span], size: int) -> _FindText:
    starts = [sentence.start for sentence in sentences]

    def find(outer: Span) -> Span | None:
        first, last = bisect_right(starts, outer.start) - 1, bisect_right(starts, outer.end - 1) - 1
        if first < 0 or last - first >= size or sentences[first].end <= outer.start or sentences[last].end < outer.end:
            return None
        return Span(sentences[first].start, sentences[last].end)

    return find


def _word_texts(tokens: Sequence[tuple[int, int]], size: int) -> _FindText:
    starts = [start for start, _ in tokens]

    def find(outer: Span) -> Span | None:
        first, last = bisect_right(starts, outer.start) - 1, bisect_right(starts, outer.end - 1) - 1
        spare = size - (last - first + 1)
        if first < 0 or spare < 0:
            return None
        first, last = max(0, first - spare // 2), min(len(tokens) - 1, last + spare - spare // 2)
        return Span(tokens[first][0], max(tokens[last][1], outer.end))

    return find
