"""Read Markdown: its text as it is, cut at its headings.

Headings are lines that begin with ``#`` and lines underlined with ``=`` or ``-``, outside of fenced code. A title in
the front matter (between lines of ``---`` or ``+++``) is the document's; the rest of the front matter is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from retrograd.data.documents.plain import read_whole_text
from retrograd.data.documents.sections import Document, Heading, sections_of

__all__ = ["read_markdown"]

# It begins with a key, or a rule above and one far below would make a text of it.
_FRONT_MATTER = re.compile(r"(---|\+\+\+)[ \t]*\n((?:[\w\"'-]+[ \t]*[:=]|#|\[).*?\n)\1[ \t]*(?:\n|\Z)", re.DOTALL)
_TITLE = re.compile(r"^title[ \t]*[:=](.*)$", re.MULTILINE)
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")
_MARKED = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*$")
_NO_PARAGRAPH = re.compile(r"[ \t]*$| {4}|\t| {0,3}(?:[>|]|[-*+][ \t]|\d{1,9}[.)][ \t]|<)")
_CLOSING_MARKS = re.compile(r"(?:^|[ \t])#+[ \t]*$")
_ATTRIBUTES = re.compile(r"(?<![ \t])[ \t]*+\{[#.][^{}]*\}[ \t]*$")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")
_EMPHASIS = re.compile(r"[*`]+|(?<!\w)_+|_+(?!\w)")


def read_markdown(path: Path) -> Document:
    """Return a file of Markdown. Raises `UserError` as `read_whole_text` does."""
    text = read_whole_text(path)
    matter = _FRONT_MATTER.match(text)
    start = matter.end() if matter else 0
    title = _TITLE.search(matter[2]) if matter else None
    own = "" if title is None else title[1].strip().strip("\"'")
    return Document(own, sections_of(text, list(_headings(text, start)), start))


def _headings(text: str, start: int) -> Iterator[Heading]:
    fence = ""
    candidate: tuple[int, str] | None = None  # a paragraph of one line, which may turn out to be underlined
    in_paragraph = False
    for position, line in _lines(text, start):
        mark = _FENCE.match(line)
        if fence:
            if mark and mark[1].startswith(fence) and not mark[2].strip():
                fence = ""
            continue
        end = position + len(line)
        heading, underline = _MARKED.match(line), _UNDERLINE.match(line)
        is_text = False
        if mark and not (mark[1][0] == "`" and "`" in mark[2]):
            fence = mark[1]
        elif heading:
            yield Heading(len(heading[1]), position, end, _plain(_CLOSING_MARKS.sub("", heading[2] or "")))
        elif underline and candidate:
            yield Heading(1 if "=" in underline[1] else 2, candidate[0], end, _plain(candidate[1]))
        else:
            is_text = not _NO_PARAGRAPH.match(line)
        candidate = (position, line) if is_text and not in_paragraph else None
        in_paragraph = is_text


def _lines(text: str, start: int) -> Iterator[tuple[int, str]]:
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        yield start, text[start:end]
        start = end + 1


def _plain(heading: str) -> str:
    """Return the words of a heading, without the marks of links and emphasis."""
    return " ".join(_EMPHASIS.sub("", _LINK.sub(r"\1", _ATTRIBUTES.sub("", heading))).split())
