"""Sentence boundaries by rule, without a model, for any amount of text.

A sentence ends at a full stop, a question or an exclamation mark (with what closes quotation marks and brackets behind
it) before space and a capital, a number or an opening sign; and at a blank line. A full stop ends none after an initial
("J."), after a word of `ABBREVIATIONS`, between "No" and a number, and after a number that begins the sentence
("1. Update your address"). Made for English and its neighbours: text in a script without capitals stays together.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["ABBREVIATIONS", "sentence_spans"]

_ABBREVIATIONS = """
Mr Mrs Ms Dr Prof Sr Jr St Gen Col Lt Sgt Capt Cmdr Adm Rev Hon Gov Sen Rep Pres Mt Ft
Inc Ltd Co Corp Bros ed eds cf vs approx ca e.g i.e
Jan Feb Mar Apr Jun Jul Aug Sep Sept Oct Nov Dec
"""
ABBREVIATIONS = frozenset(_ABBREVIATIONS.casefold().split())
"""Words, in lower case and without their last full stop, that end no sentence."""

_BEFORE_NUMBERS = frozenset({"no", "nos", "vol", "vols", "p", "pp", "fig", "art", "ch"})

_CLOSING, _OPENING = "\"'”’»)\\]", "\"'“‘«(\\[¿¡"
_END = re.compile(rf"([.!?]+)([{_CLOSING}]*)(\s+)(?=[{_OPENING}]*[^\W_a-zß-öø-ÿ])|\n\s*\n")
_LAST_WORD = re.compile(rf"[^\s{_OPENING}]*$")


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Yield the characters [start, end) of every sentence, in order, without space around them.

    Together they cover all visible characters. A text without an end is one sentence; a blank text has none.
    """
    start = 0
    for end in _END.finditer(text):
        if end[1] == "." and _belongs_to_word(text[start : end.start()], text[end.end()]):
            continue
        yield from _trim(text, start, end.start() if end[1] is None else end.end(2))
        start = end.end()
    yield from _trim(text, start, len(text))


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
