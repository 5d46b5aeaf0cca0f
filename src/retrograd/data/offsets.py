"""Offsets of spans in texts: the units that tools count them in, and spans that do not look like words.

Python counts characters. JavaScript, Java and C# count UTF-16 code units, of which an emoji has two; Go and Rust count
the bytes of UTF-8. Some tools count from 1, or name the last character of a span instead of the one behind it. Read as
characters, such offsets are silently wrong: a span begins or ends inside a word, or on a space.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Literal, get_args

from retrograd.metrics.words import cuts_word
from retrograd.types import Span, UserError
from retrograd.util.guards import suggest_name

__all__ = ["OFFSETS", "Offsets", "SpanCheck", "known_offsets", "read_offsets"]

Offsets = Literal["characters", "utf-16", "utf-8"]
"""Units that offsets count: characters (code points), UTF-16 code units, or bytes of UTF-8."""

OFFSETS: tuple[Offsets, ...] = get_args(Offsets)

_UNITS = {"characters": "characters", "utf-16": "UTF-16 code units", "utf-8": "bytes of UTF-8"}
_SHIFTS = {
    (0, 1): "add 1 to every end: the end is exclusive",
    (-1, 0): "subtract 1 from every start: offsets count from 0",
    (-1, -1): "subtract 1 from every offset: they count from 0",
}
"""What to do where a span is whole words with this much added to start and end."""


def known_offsets(offsets: str) -> Offsets:
    """Return one of `OFFSETS`. Raises `UserError` for anything else, with the nearest of them."""
    for known in OFFSETS:
        if offsets == known:
            return known
    raise UserError(f"unknown unit of offsets {offsets!r}; {suggest_name(offsets, OFFSETS)}")


def read_offsets(text: str, pair: tuple[int, int], offsets: Offsets, name: str) -> Span:
    """Return the characters of the span ``pair``, [start, end) in units of ``offsets``.

    In characters it may lie outside the text. Raises `UserError`, with the ``name`` of the span, for an offset in other
    units that lies outside the text or inside a character.
    """
    if offsets == "characters" or text.isascii():
        return Span(*pair)
    starts = _starts(text, offsets)
    start, end = (_position(starts, offset) for offset in pair)
    if start is not None and end is not None:
        return Span(start, end)
    shown = Span(*pair)
    if not all(0 <= offset <= starts[-1] for offset in pair):
        raise UserError(
            f"{name} {shown} lies outside the text of {starts[-1]} {_UNITS[offsets]}; offsets count them from 0 and "
            f'the end is exclusive ("offsets" is for other units)'
        )
    inside = pair[0] if start is None else pair[1]
    character = text[bisect_left(starts, inside) - 1]
    raise UserError(
        f"{name} {shown} begins or ends inside the character {character!r}, as offsets count {_UNITS[offsets]}; set "
        f'"offsets" to what they count: {", ".join(OFFSETS)}'
    )


def _starts(text: str, offsets: Offsets) -> list[int]:
    """Return where each character begins, and where the text ends, in units."""
    match offsets:
        case "characters":
            return list(range(len(text) + 1))
        case "utf-16":
            sizes = (1 + (character > "\uffff") for character in text)
        case "utf-8":
            sizes = (len(character.encode("utf-8", "surrogatepass")) for character in text)
    return [0, *accumulate(sizes)]


def _position(starts: Sequence[int], offset: int) -> int | None:
    """Return the character that begins at an offset, None where none does."""
    position = bisect_left(starts, offset)
    return position if position < len(starts) and starts[position] == offset else None


@dataclass
class SpanCheck:
    """Count of the spans of one source that begin or end inside a word or on a space, with the first of them.

    ``offsets`` are the units that the spans were read in, ``setting`` the name of the setting that says so.
    """

    setting: str
    offsets: Offsets = "characters"
    spans: int = 0
    odd: int = 0
    first: tuple[str, str] | None = None
    """Place of the first such span, and what is wrong with it."""
    _remedies: Counter[str] = field(default_factory=Counter)

    def add(self, place: str, name: str, text: str, span: Span) -> None:
        """Check one span of a text; one that lies outside it is for its reader to refuse."""
        if not 0 <= span.start < span.end <= len(text):
            return
        self.spans += 1
        fault = _fault(text, span)
        if not fault:
            return
        self.odd += 1
        if self.first is None:
            around = text[max(span.start - 10, 0) : span.end + 10]
            self.first = place, f"{name} {span} is {span.of(text)!r} of {around!r} and {fault}"
        self._remedies.update(self._remedies_for(text, span))

    def message(self) -> tuple[str, str]:
        """Return what is wrong, and the remedy that makes most of the spans whole words."""
        assert self.first is not None
        others = f"; so do {self.odd - 1:,} more of {self.spans:,} spans" if self.odd > 1 else ""
        best = self._remedies.most_common(1)
        if best:
            remedy, count = best[0]
            return f"{self.first[1]}{others}", f"{remedy} ({count:,} of {self.odd:,} are whole words then)"
        return f"{self.first[1]}{others}", "correct the offsets, unless such a part of a word is meant"

    def _remedies_for(self, text: str, span: Span) -> Iterable[str]:
        """Yield what would make the span one of whole words."""
        starts = _starts(text, self.offsets)
        raw = starts[span.start], starts[span.end]
        for offsets in OFFSETS:
            if offsets != self.offsets and not text.isascii():
                own = _starts(text, offsets)
                start, end = (_position(own, offset) for offset in raw)
                if _is_whole(text, start, end):
                    yield f'offsets count {_UNITS[offsets]}: set {self.setting} = "{offsets}"'
        for (before, behind), remedy in _SHIFTS.items():
            if _is_whole(text, span.start + before, span.end + behind):
                yield remedy


def _is_whole(text: str, start: int | None, end: int | None) -> bool:
    if start is None or end is None or not 0 <= start < end <= len(text):
        return False
    return not _fault(text, Span(start, end))


def _fault(text: str, span: Span) -> str:
    """Return how a span begins or ends, where that is neither before nor behind a word; else nothing."""
    words = span.of(text)
    if words[:1].isspace() or words[-1:].isspace():
        return "begins on a space" if words[:1].isspace() else "ends on a space"
    if cuts_word(text, span.start):
        return "begins inside a word"
    return "ends inside a word" if cuts_word(text, span.end) else ""
