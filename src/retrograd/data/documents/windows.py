"""Cut texts into windows of whole sentences that overlap.

A window is a piece of the text as it is, from its first word to its last. A sentence that is longer than a window is
cut at the ends of its lines, and a line that is longer after any word; in scripts that are written without spaces each
character is a word.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, get_args

from retrograd.data.record_fields import require_known
from retrograd.data.sentences import SENTENCES, Language, SplitSentences
from retrograd.data.splitting import WORD, Unit, join_units
from retrograd.types import UserError

__all__ = ["Windows", "window_spans"]

_UNITS = ("words", "sentences")


@dataclass(frozen=True)
class Windows:
    """Frozen settings of cutting documents into passages of whole sentences.

    ``words`` is how many words a passage has at most. ``overlap`` is how much of the passage before it repeats: as many
    whole sentences as have so many words at most, or with ``overlap_in`` "sentences" so many sentences; fewer where
    there would be no space for a new one. ``language`` says by which rule sentences end: "en" knows the abbreviations
    of English and its neighbours, "any" ends one at every mark before space, unless a small letter follows; the marks
    of other scripts (``。``, ``।``, ``؟`` …) end one by both.

    Example::

        windows = rg.Windows(words=120, overlap=1, overlap_in="sentences")
        print(windows.words)
    """

    words: int = 100
    overlap: int = 20
    overlap_in: Literal["words", "sentences"] = "words"
    language: Language = "en"

    def __post_init__(self) -> None:
        require_known(self.overlap_in, _UNITS, "unit of the overlap of windows")
        require_known(self.language, get_args(Language), "language of windows")
        if self.words < 1:
            raise UserError(f"words is {self.words}; expected 1 word a passage or more")
        if self.overlap < 0:
            raise UserError(f"overlap is {self.overlap}; expected 0 or more")
        if self.overlap_in == "words" and self.overlap >= self.words:
            raise UserError(f"overlap is {self.overlap} words of {self.words}; expected fewer than a passage has")


def window_spans(
    text: str, windows: Windows, split_sentences: SplitSentences | None = None
) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of the windows of a text, in order; a blank text has none.

    ``split_sentences`` takes the place of the rule of ``windows.language``. Every word of the text is in a window, even
    one that no sentence has. Raises `UserError` for sentences that are no characters of the text, or not in order.
    """
    if split_sentences is None:
        bounds = _bounds(SENTENCES[windows.language], text)
    else:
        bounds = _bounds(split_sentences, text)
    units: list[Unit] = []
    for start, end in bounds:
        units += _units(text, start, end, windows.words)
    return join_units(units, windows.words, windows.overlap, windows.overlap_in == "sentences")


def _bounds(split_sentences: SplitSentences, text: str) -> Iterator[tuple[int, int]]:
    """Yield parts of a text that begin where sentences begin, and cover it all."""
    first, last_start = 0, 0
    for number, span in enumerate(split_sentences(text)):
        start, end = _checked(span, text)
        if not last_start <= start <= end <= len(text):
            raise UserError(
                f"split_sentences returned the sentence ({start}, {end}) of a text of {len(text)} characters, behind "
                f"one from {last_start}; expected characters [start, end), in order"
            )
        last_start = start
        if number:
            yield first, start
            first = start
    yield first, len(text)


def _checked(span: object, text: str) -> tuple[int, int]:
    if isinstance(span, tuple | list) and len(span) == 2:
        start, end = span
        if isinstance(start, int) and isinstance(end, int):
            return start, end
    raise UserError(
        f"split_sentences returned {str(span)[:60]!r} for the text {text[:40]!r} …; expected pairs of characters "
        f"(start, end), such as [(s.start_char, s.end_char) for s in nlp(text).sents]"
    )


def _units(text: str, start: int, end: int, length: int) -> Iterator[Unit]:
    """Yield a sentence, or where it has more words than ``length`` its lines, and the pieces of longer ones."""
    words = [word.span() for word in WORD.finditer(text, start, end)]
    if not words:
        return
    if len(words) <= length:
        yield Unit(words[0][0], words[-1][1], len(words))
        return
    line: list[tuple[int, int]] = []
    for word in words:
        if line and (len(line) == length or "\n" in text[line[-1][1] : word[0]]):
            yield Unit(line[0][0], line[-1][1], len(line))
            line = []
        line.append(word)
    yield Unit(line[0][0], line[-1][1], len(line))
