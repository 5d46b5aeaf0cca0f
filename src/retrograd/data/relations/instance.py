"""Relation instances, and their sentences with both entities marked: ``the @ ridge @ uprises from the # surge #``.

The marks are single punctuation tokens in every common vocabulary, so that a small model spends two tokens per entity
(Zhou & Chen 2022, "An Improved Baseline for Sentence-level Relation Extraction", found punctuation at least as good as
new special tokens). A literal ``@``, ``#`` or backslash of the sentence is written with a backslash before it, so that
`unmark` recovers sentence and offsets exactly, whatever the sentence holds.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from retrograd.types import Example, Span, UserError

__all__ = [
    "RelationExample",
    "RelationInstance",
    "bare_sentence",
    "entity_types",
    "escape",
    "has_unseen_label",
    "mark",
    "marked_spans",
    "unmark",
]

HEAD_MARK = "@"
TAIL_MARK = "#"
_ESCAPED = re.compile(r"[\\@#]")
_TOKEN = re.compile(r"\\([\\@#])|([@#])")


@dataclass(frozen=True, slots=True)
class RelationInstance:
    """A sentence, two entities in it and, where known, the relation between them.

    One entity may lie inside the other. Raises `UserError` for a span outside the text, a blank one, equal spans
    and spans that overlap in part (in practice always an error in the offsets).

    ``document`` is the id of the document that the text is of, where a file says it; it makes no instance different.
    """

    id: str
    text: str
    head: Span
    tail: Span
    relation: str | None
    head_type: str = ""
    tail_type: str = ""
    document: str = field(default="", compare=False)

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


@dataclass(frozen=True, slots=True)
class RelationExample(Example):
    """A relation example with the types of its two entities, where known; ``query`` is the marked sentence.

    Names and offsets stand in the query; the relation is what the target says. With ``has_unseen_label`` the target is
    a label that the task does not know, as the data have it, and every answer is wrong.
    """

    head_type: str = ""
    tail_type: str = ""
    has_unseen_label: bool = False


def entity_types(example: Example) -> tuple[str, str] | None:
    """Return the types of head and tail, each "" where it is not known; None for an example of another task."""
    return (example.head_type, example.tail_type) if isinstance(example, RelationExample) else None


def has_unseen_label(example: Example) -> bool:
    """Return whether the target of an example is a label that its task does not know."""
    return isinstance(example, RelationExample) and example.has_unseen_label


def check_span(span: Span, name: str, text: str) -> None:
    """Raise `UserError` unless ``span`` covers something visible inside ``text``."""
    if not 0 <= span.start <= span.end <= len(text):
        raise UserError(
            f"{name} {span} lies outside the text of {len(text)} characters; "
            'offsets count characters from 0 and the end is exclusive ("offsets" is for other units)'
        )
    if not span.of(text).strip():
        raise UserError(f"{name} {span} covers no visible character; the end is exclusive, one past the last character")


def mark(text: str, head: Span, tail: Span) -> str:
    """Return ``text`` with ``@ head @`` and ``# tail #``; `unmark` is the inverse."""
    # At one place closing marks stand before opening ones; an inner entity closes before the outer, opens after it.
    marks: list[tuple[tuple[int, int, int], str]] = []
    for span, symbol in ((head, HEAD_MARK), (tail, TAIL_MARK)):
        marks.append(((span.end, 0, -span.start), f" {symbol}"))
        marks.append(((span.start, 1, -span.end), f"{symbol} "))
    parts: list[str] = []
    end = 0
    for (position, _, _), symbol_text in sorted(marks):
        parts += [escape(text[end:position]), symbol_text]
        end = position
    return "".join([*parts, escape(text[end:])])


def escape(text: str) -> str:
    """Return ``text`` with a backslash before each character that could be a mark."""
    return _ESCAPED.sub(lambda match: "\\" + match[0], text)


def unmark(marked: str) -> tuple[str, Span, Span]:
    """Return sentence, head and tail of a marked text. Raises `UserError` for a missing or repeated mark."""
    scan = _require_marks(marked)
    return scan.text, Span(*scan.bare[HEAD_MARK]), Span(*scan.bare[TAIL_MARK])


def marked_spans(marked: str) -> tuple[Span, Span]:
    """Return the spans of head and tail in the marked text, without their own marks; a nested entity keeps its marks.

    Raises `UserError` as `unmark` does.
    """
    scan = _require_marks(marked)
    return Span(*scan.inside[HEAD_MARK]), Span(*scan.inside[TAIL_MARK])


def bare_sentence(marked: str) -> str:
    """Return the sentence without marks; a text that is not marked correctly is accepted without error."""
    return _scan(marked).text


@dataclass(frozen=True, slots=True)
class _Scan:
    """Result of scanning a marked text: the text without marks, and by mark, in order, its position there (``bare``)
    and where in the marked text the words inside the marks begin and end (``inside``).
    """

    text: str
    bare: dict[str, list[int]]
    inside: dict[str, list[int]]


def _require_marks(marked: str) -> _Scan:
    scan = _scan(marked)
    for name, symbol in (("head", HEAD_MARK), ("tail", TAIL_MARK)):
        if len(scan.bare[symbol]) != 2:
            raise UserError(
                f"{len(scan.bare[symbol])} {symbol!r} marks in {marked!r}, expected 2 around the {name}; "
                f"build texts with RelationExtraction.example or .passage, or write a literal sign as \\{symbol}"
            )
    return scan


def _scan(marked: str) -> _Scan:
    text = ""
    bare: dict[str, list[int]] = {HEAD_MARK: [], TAIL_MARK: []}
    inside: dict[str, list[int]] = {HEAD_MARK: [], TAIL_MARK: []}
    position = 0
    for token in _TOKEN.finditer(marked):
        text += marked[position : token.start()]
        position = token.end()
        if token[1]:
            text += token[1]
            continue
        # The space inside a mark belongs to it: after an opening one, before a closing one.
        opening = len(bare[token[2]]) % 2 == 0
        edge = token.start()
        if opening:
            position += marked.startswith(" ", position)
            edge = position
        elif text.endswith(" "):
            text = text[:-1]
            edge -= 1
        bare[token[2]].append(len(text))
        inside[token[2]].append(edge)
    return _Scan(text + marked[position:], bare, inside)
