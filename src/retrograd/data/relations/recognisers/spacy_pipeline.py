"""Recognise entities by a spaCy pipeline, an installed package or a folder. Only this file and a reader import spaCy.

A pipeline that finds sentences (a parser, a senter or a sentencizer) brings their ends, too. Long texts are read in
parts that end at blank lines.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.types import Span, UserError
from retrograd.util.guards import first_line
from retrograd.util.optional import is_installed, require_package

if TYPE_CHECKING:
    from spacy.language import Language  # pyright: ignore[reportMissingImports]
    from spacy.tokens import Doc  # pyright: ignore[reportMissingImports]

__all__ = ["SpacyRecogniser", "open_spacy", "require_spacy"]

_PART = 100_000
"""The most characters of a part, where blank lines permit: parsers need about 1 GB for so many."""

_BLANK_LINE = re.compile(r"\n\s*\n")


def require_spacy(name: str) -> None:
    """Raise `UserError` where spaCy, or the pipeline that is named, is not there."""
    require_package("--ner spacy:…", "spacy", "spacy", instead="list the names in a file: --ner gazetteer:FILE")
    if not Path(name).exists() and not (name.isidentifier() and is_installed(name)):
        raise UserError(
            f"--ner spacy:{name}: no folder of that name, and no installed package; install the pipeline, or give the "
            f"folder that nlp.to_disk wrote"
        )


def open_spacy(name: str, types: Sequence[str] = ()) -> SpacyRecogniser:
    """Open a pipeline; its types are its own, whatever ``types`` are. Raises `UserError` where it cannot be loaded."""
    require_spacy(name)
    import spacy  # pyright: ignore[reportMissingImports]

    try:
        pipeline = spacy.load(Path(name) if Path(name).exists() else name)
    except Exception as error:  # a config may name any function, and a damaged folder raises anything
        raise UserError(f"--ner spacy:{name} cannot be loaded ({first_line(error)}); save the pipeline again") from None
    return SpacyRecogniser(pipeline)


class SpacyRecogniser:
    """The entities of ``doc.ents`` and, where the pipeline finds them, the sentences of ``doc.sents``."""

    def __init__(self, pipeline: Language) -> None:
        self._pipeline = pipeline

    @property
    def language(self) -> str:
        """Return the language of the pipeline; "" for one of several languages."""
        return "" if self._pipeline.lang in (None, "xx") else self._pipeline.lang

    def recognise(self, text: str) -> Recognised:
        """Return entities and sentences. Raises `UserError` for a part too long for the pipeline."""
        entities: list[Entity] = []
        sentences: list[Span] = []
        finds_sentences = False
        for start, part in _split(text):
            if len(part) > self._pipeline.max_length:
                raise UserError(
                    f"{len(part):,} characters without a blank line, and this pipeline reads "
                    f"{self._pipeline.max_length:,} at most; separate the paragraphs by blank lines"
                )
            doc = self._read(part)
            entities += [Entity(Span(start + one.start_char, start + one.end_char), one.label_) for one in doc.ents]
            if doc.has_annotation("SENT_START"):
                finds_sentences = True
                sentences += _trim(text, (Span(start + one.start_char, start + one.end_char) for one in doc.sents))
        return Recognised(tuple(entities), tuple(sentences) if finds_sentences else None)

    def _read(self, part: str) -> Doc:
        try:
            return self._pipeline(part)
        except Exception as error:  # of any component, such as one that was never trained
            raise UserError(
                f"the spaCy pipeline cannot read it ({first_line(error)}); try the pipeline alone"
            ) from None


def _trim(text: str, sentences: Iterable[Span]) -> Iterator[Span]:
    """Yield the sentences without the white space around them, which spaCy counts in, and none that are blank."""
    for span in sentences:
        words = span.of(text)
        if words.strip():
            yield Span(span.start + len(words) - len(words.lstrip()), span.end - len(words) + len(words.rstrip()))


def _split(text: str) -> Iterator[tuple[int, str]]:
    """Yield the parts of a text with where each begins: as long as `_PART` permits, each up to a blank line."""
    start = end = 0
    for blank in _BLANK_LINE.finditer(text):
        if blank.end() - start > _PART and end > start:
            yield start, text[start:end]
            start = end
        end = blank.end()
    if len(text) - start > _PART and end > start:
        yield start, text[start:end]
        start = end
    if text[start:].strip():
        yield start, text[start:]
