"""Read HTML by the standard library's parser: what a reader of the page sees, cut at its headings.

Spaces are one space each, as on the page; paragraphs, lists and tables are parted by blank lines, their items and rows
by line ends. What is no text of the page is left out: scripts, styles, templates, navigation (`nav`), drawings. Places
count characters of the text that is left, as `read_html` returns it.
"""

from __future__ import annotations

import codecs
import re
from html.parser import HTMLParser
from pathlib import Path

from retrograd.data.documents.plain import plain_line_ends, read_unpacked
from retrograd.data.documents.sections import Document, Heading, sections_of
from retrograd.types import UserError

__all__ = ["read_html"]

_LEFT_OUT = frozenset({"template", "noscript", "nav", "svg", "math", "object", "iframe", "select", "datalist"})
_HEADINGS = frozenset({"h1", "h2", "h3", "h4", "h5", "h6"})
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl",
     "dt", "fieldset", "figcaption", "figure", "footer", "form", "header", "hgroup", "hr", "legend", "main", "menu",
     "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "ul"}
)  # fmt: skip
_LINES = frozenset({"br", "li", "tr"})
_CELLS = frozenset({"td", "th"})
_GAPS = ("", " ", "\n", "\n\n")
_SPACE, _LINE, _BLOCK = 1, 2, 3

# Scripts and comments hold anything, and the parser's own search for their ends can take the square of their length.
_NO_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<(script|style)(?=[\s/>]).*?(?:</\1\s*>|\Z)|<![^>]*(?:>|\Z)", re.DOTALL | re.IGNORECASE
)
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\s*<\?xml[^>]{0,200}?encoding\s*=\s*[\"']([\w.:-]{1,40})", re.IGNORECASE)
_HEAD_BYTES = 4_096


def read_html(path: Path) -> Document:
    """Return a page of HTML. Raises `UserError` for a file that is not in the encoding that it names, or else UTF-8."""
    page = _Page()
    try:
        page.feed(_NO_MARKUP.sub(" ", plain_line_ends(_decode(path))))
        page.close()
    except (AssertionError, ValueError, RecursionError) as error:  # what the parser raises for markup it cannot take
        raise UserError(f"{path} cannot be read as HTML ({error}); save it again from a browser") from None
    text = page.text()
    return Document(page.title(), sections_of(text, page.headings()))


def _decode(path: Path) -> str:
    raw = read_unpacked(path)
    declared = _CHARSET.search(raw, 0, _HEAD_BYTES) or _XML_ENCODING.match(raw, 0, _HEAD_BYTES)
    candidates = ["utf-8", *([declared[1].decode("ascii")] if declared else [])]
    for encoding in candidates:
        try:
            return codecs.decode(raw, _known(encoding))
        except UnicodeError:
            continue
    raise UserError(f"{path}: not in {' or '.join(candidates)}; re-save the page as UTF-8")


def _known(encoding: str) -> str:
    """Return the name of an encoding of text as browsers understand it, UTF-8 for one that is not known."""
    try:
        known = codecs.lookup(encoding).name
    except (LookupError, ValueError):
        return "utf-8"
    if known in ("iso8859-1", "ascii"):
        return "cp1252"
    return known if known.startswith(_OF_TEXT) else "utf-8"


_OF_TEXT = ("utf", "iso", "cp", "windows", "koi8", "mac", "big5", "gb", "euc", "shift", "tis", "johab", "hz", "ptcp")


class _Page(HTMLParser):
    """The text of a page as it is read, tag by tag."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._length = 0
        self._gap = 0
        self._left_out: list[str] = []
        self._preformatted = 0
        self._title: list[str] | None = None
        self._own_title = ""
        self._level = 0
        self._heading_start = -1
        self._headings: list[tuple[int, int, int]] = []

    def text(self) -> str:
        return "".join(self._parts)

    def title(self) -> str:
        self._close_title()
        return self._own_title

    def headings(self) -> list[Heading]:
        self._close_heading()
        text = self.text()
        return [
            Heading(level, start, end, " ".join(text[start:end].rstrip("¶ ").split()))
            for level, start, end in self._headings
        ]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out:
            if tag == self._left_out[-1]:
                self._left_out.append(tag)
            return
        self._close_title()
        if tag in _LEFT_OUT:
            self._left_out.append(tag)
        elif tag == "title":
            self._title = []
        elif tag in _HEADINGS:
            self._close_heading()
            self._part(_BLOCK)
            self._level, self._heading_start = int(tag[1]), -1
        elif tag in _BLOCKS:
            if self._heading_start >= 0:
                self._close_heading()  # whose end is missing
            self._part(_BLOCK)
            self._preformatted += tag == "pre"
        else:
            self._part(_LINE if tag in _LINES else _SPACE if tag in _CELLS else 0)

    def handle_endtag(self, tag: str) -> None:
        if self._left_out:
            if tag == self._left_out[-1]:
                self._left_out.pop()
        elif tag == "title":
            self._close_title()
        elif tag in _HEADINGS:
            self._close_heading()
        elif tag in _BLOCKS:
            self._part(_BLOCK)
            self._preformatted = max(0, self._preformatted - (tag == "pre"))
        elif tag in _LINES:
            self._part(_LINE)

    def handle_data(self, data: str) -> None:
        if self._left_out:
            return
        if self._title is not None:
            self._title.append(data)
            return
        if self._preformatted and self._length:
            self._append(_GAPS[self._gap] + data)
            self._gap = 0
            return
        words = data.split()
        self._part(_SPACE if not words or data[0].isspace() else 0)
        if not words:
            return
        if self._length:
            self._append(_GAPS[self._gap])
        if self._level and self._heading_start < 0:
            self._heading_start = self._length
        self._append(" ".join(words))
        self._gap = _SPACE if data[-1].isspace() else 0

    def _part(self, gap: int) -> None:
        self._gap = max(self._gap, gap)

    def _append(self, part: str) -> None:
        self._parts.append(part)
        self._length += len(part)

    def _close_title(self) -> None:
        if self._title is not None:
            self._own_title = self._own_title or " ".join("".join(self._title).split())
            self._title = None

    def _close_heading(self) -> None:
        if self._level and self._heading_start >= 0:
            self._headings.append((self._level, self._heading_start, self._length))
        if self._level:
            self._part(_BLOCK)
        self._level, self._heading_start = 0, -1
