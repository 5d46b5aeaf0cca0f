"""The text of an instance for retrievers, and the places of head, tail and third role in it.

A retriever text is the marked sentence in one of four styles; in the published form of ETRAG (arXiv 2406.03790) a
passage's text ends with a bar and its label's phrase. `role_spans` finds the one place where the marked sentence can
begin: written in its style, what follows must give the whole text again.

====================  ===================================  ==============================================
style                 text                                 context (the third role, without a label)
====================  ===================================  ==============================================
``marked``            ``marked``                           the whole text
``entities+marked``   ``head ; tail : marked``             ``marked``
``between``           from the first entity to the last    the whole text
``between+marked``    ``between : marked``                 ``between``
====================  ===================================  ==============================================

Head and tail are the words inside their marks in ``marked`` (in ``between`` alone: there).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from retrograd.data.relations.instance import escape, mark, marked_spans, unmark
from retrograd.types import Span, UserError

__all__ = ["QUERY_STYLES", "RoleSpans", "restyle_text", "role_spans", "with_label"]

QUERY_STYLES = ("marked", "entities+marked", "between", "between+marked")
"""What both retriever towers read: the marked sentence; the two entities before it; from the first entity to the last,
marked; or that part before the whole marked sentence."""

RoleSpans = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""Head, tail and context (or label) as characters ``[start, end)`` of a retriever text."""

_COLON = " : "
_BAR = " | "
_COLONS = re.compile(f"(?={_COLON})")


def restyle_text(marked: str, style: str) -> str:
    """Return a marked sentence in one of `QUERY_STYLES`.

    Raises `UserError` where it is not marked, but for ``marked``.
    """
    if style == "marked":
        return marked
    text, head, tail = unmark(marked)
    if style == "entities+marked":
        return f"{head.of(text)} ; {tail.of(text)}{_COLON}{marked}"
    between = _between(text, head, tail)
    return between if style == "between" else f"{between}{_COLON}{marked}"


def with_label(text: str, label: str) -> str:
    """Return a retriever text, a bar and a label (or a target), whose literal ``@`` and ``#`` are no marks."""
    return f"{text}{_BAR}{escape(label)}"


def role_spans(text: str, style: str, labels: Iterable[str] = ()) -> RoleSpans:
    """Return head, tail and context of a retriever text in ``style``; for one that ends with a bar and one of
    ``labels``, that label instead of the context.

    A text made by `styled` or `with_label` always has them. A query that itself ends with a bar and a label's words
    is read as labelled. Raises `UserError` for a text that is not in this style.
    """
    endings = [with_label("", label) for label in labels]
    ending = max((ending for ending in endings if text.endswith(ending)), key=len, default="")
    if not ending:
        return _spans(text, style)
    head, tail, _ = _spans(text.removesuffix(ending), style)
    return head, tail, (len(text) - len(ending) + len(_BAR), len(text))


def _spans(text: str, style: str) -> RoleSpans:
    start = 0 if style in ("marked", "between") else _start_of_marked(text, style)
    head, tail = ((start + span.start, start + span.end) for span in marked_spans(text[start:]))
    if style == "between+marked":
        return head, tail, (0, start - len(_COLON))
    return head, tail, (start, len(text))


def _start_of_marked(text: str, style: str) -> int:
    """Return the start of the marked sentence: the colon after which the rest, in this style, is the whole text again.

    There is one: a second place would leave the same four marks, so the same entities, so the same words before them.
    """
    for colon in _COLONS.finditer(text):
        start = colon.start() + len(_COLON)
        try:
            if restyle_text(text[start:], style) == text:
                return start
        except UserError:  # the rest has not two marks of each kind
            continue
    raise UserError(f"{text!r} is no text of style {style!r}; build it with RelationExtraction.query_text")


def _between(text: str, head: Span, tail: Span) -> str:
    """Return the marked text from the first entity's start to the last one's end."""
    start, end = min(head.start, tail.start), max(head.end, tail.end)
    return mark(text[start:end], Span(head.start - start, head.end - start), Span(tail.start - start, tail.end - start))
