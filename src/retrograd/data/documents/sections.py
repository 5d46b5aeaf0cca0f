"""A document as its reader gives it: parts of a text under their headings, which no passage leaves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

__all__ = ["Document", "Heading", "Section", "passage_title", "sections_of"]

_SEPARATOR = " > "


@dataclass(frozen=True)
class Section:
    """The characters [start, end) of a text, and the headings that they stand under, the widest first.

    ``place`` is what an id has before the characters, such as ``page=3:``.
    """

    text: str
    start: int
    end: int
    headings: tuple[str, ...] = ()
    place: str = ""


@dataclass(frozen=True)
class Document:
    """What a document calls itself, "" where it does not say, and its sections, to be read once."""

    title: str
    sections: Iterable[Section]


@dataclass(frozen=True)
class Heading:
    """A heading of a level (1 is the widest) at the characters [start, end) of a text."""

    level: int
    start: int
    end: int
    title: str


def sections_of(text: str, headings: Sequence[Heading], start: int = 0) -> Iterator[Section]:
    """Yield the sections of a text from ``start`` on, each without its heading.

    A text with nothing below its headings is one section, headings included.
    """
    first, *ends = [*(heading.start for heading in headings), len(text)]
    below = [text[heading.end : end] for heading, end in zip(headings, ends, strict=True)]
    if not any(part.strip() for part in (text[start:first], *below)):
        yield Section(text, start, len(text))
        return
    yield Section(text, start, first)
    path: list[Heading] = []
    for heading, end in zip(headings, ends, strict=True):
        path = [*(wider for wider in path if wider.level < heading.level), heading]
        yield Section(text, heading.end, end, tuple(one.title for one in path if one.title))


def passage_title(document: str, headings: Sequence[str], file: str) -> str:
    """Return the title of passages: the document's and the headings; the file's name where there is none of them.

    The document's is left out where it says the same as the widest heading.
    """
    own = " ".join(document.split())
    if headings and own:
        short, long = sorted((own.casefold(), headings[0].casefold()), key=len)
        own = "" if short in long else own
    return _SEPARATOR.join(filter(None, (own, *headings))) or file
