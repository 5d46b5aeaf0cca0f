"""Split documents into passages of a number of words, anywhere or at sentence ends, with or without an overlap.

Nothing is rewritten: a passage is a piece of the document's own text, from its first word to its last. In scripts that
are written without spaces each character is a word.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from retrograd.data.sentences import Language, SplitSentences, sentence_spans, unicode_sentence_spans
from retrograd.metrics.words import CHARACTER, MARKS
from retrograd.types import Passage, UserError
from retrograd.util.guards import suggest_name

__all__ = ["SPLIT_AT", "WORD", "Splitting", "Unit", "join_units", "split_passages"]

SPLIT_AT = ("words", "sentences")
"""Places where a passage may end: after any word, or after a sentence (a sentence longer than a passage is cut as
words)."""

WORD = re.compile(rf"{CHARACTER}[^\w\s{MARKS}]*|(?:(?!{CHARACTER})\S)+")
"""What stands between spaces; of scripts without spaces each character, with the signs behind it."""

_SENTENCES: Mapping[Language, SplitSentences] = {"en": sentence_spans, "any": unicode_sentence_spans}
"""By the rule for English a sentence never ends inside of what stands between spaces."""


@dataclass(frozen=True)
class Splitting:
    """Frozen settings of splitting into passages of ``length`` words at most, ``overlap`` of them from the one before.

    With ``at`` "words" all passages but a document's last have exactly ``length`` words and the overlap is exact; 100
    words without overlap is how DPR cut Wikipedia (Karpukhin et al. 2020, arXiv 2004.04906). With ``at`` "sentences"
    both are as many whole sentences as fit; ``language`` says by which rule these end (`Windows`). Raises `UserError`
    for a length below 1, for an overlap below 0 or not below the length, and for an unknown language.
    """

    length: int = 100
    overlap: int = 0
    at: str = "words"
    language: Language = "en"

    def __post_init__(self) -> None:
        if self.language not in _SENTENCES:
            raise UserError(f"sentences of language {self.language!r}; {suggest_name(self.language, _SENTENCES)}")
        if self.at not in SPLIT_AT:
            raise UserError(f"passages cannot be split at {self.at!r}; {suggest_name(self.at, SPLIT_AT)}")
        if self.length < 1:
            raise UserError(f"the length of passages is {self.length}; expected 1 word or more")
        if not 0 <= self.overlap < self.length:
            raise UserError(
                f"the overlap of passages is {self.overlap} words of {self.length}; expected 0 or more, and less than "
                "the length"
            )


def split_passages(
    documents: Iterable[Passage], splitting: Splitting = Splitting(), split_sentences: SplitSentences | None = None
) -> Iterator[Passage]:
    """Yield the passages of documents, in order. Each has its document's title and the id ``document#number`` from 0.

    Every word of a document is in a passage, and no passage is empty; a document without words has none.
    ``split_sentences``, a function of your own, takes the place of the rule for the language.
    """
    find_sentences = split_sentences or _SENTENCES[splitting.language]
    for document in documents:
        units = _split_units(document.text, splitting, find_sentences)
        for number, (start, end) in enumerate(join_units(units, splitting.length, splitting.overlap)):
            yield Passage(f"{document.id}#{number}", document.title, document.text[start:end])


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of text that is never split: characters [start, end), and its number of words."""

    start: int
    end: int
    words: int


def join_units(
    units: Sequence[Unit], length: int, overlap: int, overlap_counts_units: bool = False
) -> Iterator[tuple[int, int]]:
    """Yield the characters of passages of as many whole units as have ``length`` words at most.

    Of the units before it a passage repeats as many as have ``overlap`` words at most or, where these are counted, so
    many units; fewer where there would be no space for a new one. No unit may have more words than ``length``.
    """
    first = 0
    while first < len(units):
        stop = first + _count_fitting((units[i].words for i in range(first, len(units))), length)
        yield units[first].start, units[stop - 1].end
        if stop == len(units):
            return
        space = length - units[stop].words
        before = (units[i].words for i in range(stop - 1, first, -1))
        if overlap_counts_units:
            first = stop - min(overlap, _count_fitting(before, space))
        else:
            first = stop - _count_fitting(before, min(overlap, space))


def _count_fitting(words: Iterable[int], limit: int) -> int:
    """Return how many of the first units have at most ``limit`` words together."""
    return sum(1 for _ in itertools.takewhile(lambda total: total <= limit, itertools.accumulate(words)))


def _split_units(text: str, splitting: Splitting, find_sentences: SplitSentences) -> list[Unit]:
    if splitting.at == "words":
        return [Unit(word.start(), word.end(), 1) for word in WORD.finditer(text)]
    units: list[Unit] = []
    for start, end in find_sentences(text):
        words = [(start + word.start(), start + word.end()) for word in WORD.finditer(text[start:end])]
        pieces = [words[i : i + splitting.length] for i in range(0, len(words), splitting.length)]
        units += [Unit(piece[0][0], piece[-1][1], len(piece)) for piece in pieces]
    return units
