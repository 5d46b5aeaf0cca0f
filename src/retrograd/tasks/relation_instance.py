"""One relation instance, and its sentence with both entities marked: ``the @ ridge @ uprises from the # surge #``.

The marks are single punctuation tokens in every common vocabulary, so that a small model spends two tokens per entity
(Zhou & Chen 2022, "An Improved Baseline for Sentence-level Relation Extraction", found punctuation at least as good as
new special tokens). A literal ``@``, ``#`` or backslash of the sentence is written with a backslash before it, so that
`unmark` recovers sentence and offsets exactly, whatever the sentence holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from retrograd.types import UserError

__all__ = ["RelationInstance", "Span", "bare_sentence", "mark", "unmark"]

HEAD_MARK = "@"
TAIL_MARK = "#"
_ESCAPED = re.compile(r"[\\@#]")
_TOKEN = re.compile(r"\\([\\@#])|([@#])")


@dataclass(frozen=True, slots=True)
class Span:
    """Characters ``start`` (inclusive) to ``end`` (exclusive) of a text."""

    start: int
    end: int

    def of(self, text: str) -> str:
        """The characters themselves."""
        return text[self.start : self.end]

    def __str__(self) -> str:
        return f"[{self.start}, {self.end})"


@dataclass(frozen=True, slots=True)
class RelationInstance:
    """A sentence, two entities in it and, where known, the relation between them.

    One entity may lie inside the other. Raises `UserError` for a span outside the text, a blank one, equal spans
    and spans that overlap in part (in practice always an error in the offsets).
    """

    id: str
    text: str
    head: Span
    tail: Span
    relation: str | None
    head_type: str = ""
    tail_type: str = ""

    def __post_init__(self) -> None:
        check_span(self.head, "head", self.text)
        check_span(self.tail, "tail", self.text)
        first, second = sorted((self.head, self.tail), key=lambda span: (span.start, -span.end))
        if first == second:
            raise UserError(f"head and tail are both {first}; give two different entities")
        if second.start < first.end < second.end:
            raise UserError(
                f"head {self.head} and tail {self.tail} overlap in part; "
                "one may lie inside the other, otherwise they must be apart"
            )


def check_span(span: Span, name: str, text: str) -> None:
    """Raises `UserError` unless ``span`` covers something visible inside ``text``."""
    if not 0 <= span.start <= span.end <= len(text):
        raise UserError(
            f"{name} {span} lies outside the text of {len(text)} characters; "
            "offsets count characters from 0 and the end is exclusive"
        )
    if not span.of(text).strip():
        raise UserError(f"{name} {span} covers no visible character; the end is exclusive, one past the last character")


def mark(text: str, head: Span, tail: Span) -> str:
    """``text`` with ``@ head @`` and ``# tail #``; `unmark` is the inverse."""
    # At one place closing marks stand before opening ones; an inner entity closes before the outer, opens after it.
    marks: list[tuple[tuple[int, int, int], str]] = []
    for span, symbol in ((head, HEAD_MARK), (tail, TAIL_MARK)):
        marks.append(((span.end, 0, -span.start), f" {symbol}"))
        marks.append(((span.start, 1, -span.end), f"{symbol} "))
    parts: list[str] = []
    done = 0
    for (position, _, _), written in sorted(marks):
        parts += [_escape(text[done:position]), written]
        done = position
    return "".join([*parts, _escape(text[done:])])


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda match: "\\" + match[0], text)


def unmark(marked: str) -> tuple[str, Span, Span]:
    """Sentence, head and tail of a marked text. Raises `UserError` where a mark is missing or stands too often."""
    text, places = _scan(marked)
    for name, symbol in (("head", HEAD_MARK), ("tail", TAIL_MARK)):
        if len(places[symbol]) != 2:
            raise UserError(
                f"{len(places[symbol])} {symbol!r} marks in {marked!r}, expected 2 around the {name}; "
                f"build texts with RelationExtraction.example or .passage, or write a literal sign as \\{symbol}"
            )
    return text, Span(*places[HEAD_MARK]), Span(*places[TAIL_MARK])


def bare_sentence(marked: str) -> str:
    """The sentence without marks; a text that was never marked correctly is taken as it comes, without error."""
    return _scan(marked)[0]


def _scan(marked: str) -> tuple[str, dict[str, list[int]]]:
    """The text without marks, and where in it each mark stood, in order."""
    text = ""
    places: dict[str, list[int]] = {HEAD_MARK: [], TAIL_MARK: []}
    done = 0
    for token in _TOKEN.finditer(marked):
        text += marked[done : token.start()]
        done = token.end()
        if token[1]:
            text += token[1]
            continue
        # The space inside a mark belongs to it: after an opening one, before a closing one.
        opening = len(places[token[2]]) % 2 == 0
        if opening and marked.startswith(" ", done):
            done += 1
        elif not opening:
            text = text.removesuffix(" ")
        places[token[2]].append(len(text))
    return text + marked[done:], places
