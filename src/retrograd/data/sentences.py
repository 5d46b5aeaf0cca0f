"""Sentence boundaries by rule, without a model, for any amount of text.

By `sentence_spans`, a sentence ends at a full stop, a question or an exclamation mark (with what closes quotation marks
and brackets behind it) before space and a capital, a number or an opening sign; and at a blank line. A full stop ends
none after an initial ("J."), after a word of `ABBREVIATIONS`, between "No" and a number, and after a number that begins
the sentence ("1. Update your address"). Made for English and its neighbours: text in a script without capitals stays
together.

By `unicode_sentence_spans`, which knows no language, it ends at every such mark before space, unless a small letter
follows, and at the marks of scripts that have their own (``。``, ``।``, ``؟``, ``።`` …), with or without space.

`SENTENCES` has the rules by the names that settings give them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Literal, TypeAlias

__all__ = [
    "ABBREVIATIONS",
    "SENTENCES",
    "Language",
    "SplitSentences",
    "english_sentence_spans",
    "sentence_spans",
    "unicode_sentence_spans",
]

SplitSentences: TypeAlias = Callable[[str], Iterable[tuple[int, int]]]
"""A function that returns the characters [start, end) of every sentence of a text, in order."""

Language = Literal["en", "any"]
"""The languages that sentence ends are known for: English, and what the marks of Unicode show of any other."""

_ABBREVIATIONS = """
Mr Mrs Ms Dr Prof Sr Jr St Gen Col Lt Sgt Capt Cmdr Adm Rev Hon Gov Sen Rep Pres Mt Ft
Inc Ltd Co Corp Bros ed eds cf vs approx ca e.g i.e
Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.casefold().split())
"""Words, in lower case and without their last full stop, that end no sentence."""

_LONGEST_WORD = 200
_BEFORE_NUMBERS = frozenset({"no", "nos", "vol", "vols", "p", "pp", "fig", "art", "ch"})

_CLOSING, _OPENING = "\"'”’»)\\]", "\"'“‘«(\\[¿¡"
_OPENING_MARKS = _OPENING.replace("\\", "") + "„‚「『（【《〈〔"
# Of a run of marks only the first place is tried, or long ones would take the square of their length.
_END = re.compile(rf"(?<![.!?])([.!?]+)([{_CLOSING}]*)(\s+)(?=[{_OPENING}]*[^\W_a-zß-öø-ÿ])|\n\s*\n")
_LAST_WORD = re.compile(rf"[^\s{_OPENING}]*$")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of every sentence, in order, without space around them.

    Together they cover all visible characters. A text without an end is one sentence; a blank text has none.
    """
    start = 0
    for end in _END.finditer(text):
        before = text[max(start, end.start() - _LONGEST_WORD) : end.start()]
        if end[1] == "." and _belongs_to_word(before, text[end.end()]):
            continue
        yield from _trim(text, start, end.start() if end[1] is None else end.end(2))
        start = end.end()
    yield from _trim(text, start, len(text))


def unicode_sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield spans as `sentence_spans` does, for text of any language."""
    start = 0
    for end in _ANY_END.finditer(text):
        if end[1] is not None and _starts_small(text, end.end()):
            continue
        yield from _trim(text, start, end.end())
        start = end.end()
    yield from _trim(text, start, len(text))


def _starts_small(text: str, start: int) -> bool:
    """Return whether a small letter is the first behind opening marks."""
    return text[start : start + 8].lstrip(_OPENING_MARKS)[:1].islower()


def english_sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the spans of `sentence_spans`, which also end at the marks of other scripts, where a text has some."""
    start = 0
    for end in [*(match.end() for match in _FOREIGN_END.finditer(text)), len(text)]:
        for first, last in sentence_spans(text[start:end]):
            yield start + first, start + last
        start = end


def _belongs_to_word(before: str, following: str) -> bool:
    """Return whether the full stop between these parts of a text belongs to the word before it."""
    match = _LAST_WORD.search(before)
    word = match[0] if match else ""
    initial = word[-1:].isupper() and (len(word) == 1 or word[-2:-1] in ".-")
    counts = following.isdecimal() and word.casefold() in _BEFORE_NUMBERS
    return (
        initial or counts or word.casefold() in ABBREVIATIONS or (word.isdecimal() and not before[: -len(word)].strip())
    )


def _trim(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Yield the span without the space around it, unless it is blank."""
    part = text[start:end]
    if part.strip():
        indent = len(part) - len(part.lstrip())
        yield start + indent, start + len(part.rstrip())


SENTENCES: Mapping[Language, SplitSentences] = {"en": english_sentence_spans, "any": unicode_sentence_spans}
"""How sentences are found, by the language of a text."""

_CLOSING_ANYWHERE = rf"{_CLOSING}“‘」』）】》〉〕｣"
# Of the property Sentence_Terminal of Unicode the marks that no text in Latin letters has, and the Tibetan shad.
_FOREIGN = (
    r"\u0589\u061d-\u061f\u06d4\u0700-\u0702\u07f9\u0837\u0839\u083d\u083e\u0964\u0965\u0f0d-\u0f0f\u104a\u104b"
    r"\u1362\u1367\u1368\u166e\u1735\u1736\u17d4\u17d5\u1803\u1809\u1944\u1945\u1aa8-\u1aab\u1b5a\u1b5b\u1b5e\u1b5f"
    r"\u1b7d-\u1b7f\u1c3b\u1c3c\u1c7e\u1c7f\u3002\ua4ff\ua60e\ua60f\ua6f3\ua6f7\ua876\ua877\ua8ce\ua8cf\ua92f"
    r"\ua9c8\ua9c9\uaa5d-\uaa5f\uaaf0\uaaf1\uabeb\ufe52\ufe56\ufe57\uff01\uff1f\uff61"
)
_FOREIGN_END = re.compile(rf"[{_FOREIGN}]++[{_CLOSING_ANYWHERE}]*+\s*")
_COMMON = ".!?…‼‽⁇⁈⁉"
_ANY_END = re.compile(
    rf"[{_FOREIGN}]++[{_CLOSING_ANYWHERE}]*+\s*"
    rf"|(?<![{_COMMON}])([{_COMMON}]++)[{_CLOSING_ANYWHERE}]*+\s++"
    rf"|\n\s*\n"
)
