"""The recognisers that ``--ner`` names: a prefix, what follows it, and how it is opened.

A new one is one file in this folder and one line in `RECOGNISERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.data.relations.recognisers.gazetteer import read_gazetteer
from retrograd.data.relations.recognisers.gliner_model import open_gliner, require_gliner
from retrograd.data.relations.recognisers.recogniser import Recogniser
from retrograd.data.relations.recognisers.spacy_pipeline import open_spacy, require_spacy
from retrograd.types import UserError
from retrograd.util.guards import require_file, suggest_name

__all__ = ["RECOGNISERS", "NamedRecogniser", "RecogniserKind", "find_recogniser"]


@dataclass(frozen=True)
class RecogniserKind:
    """A kind of recogniser: what follows its prefix, a quick check, and how it is opened.

    ``require`` raises `UserError` where what is named, or a package, is missing. ``open`` gets the types that are to be
    found, which only a kind that ``asks_for_types`` needs; others find the types that they have.
    """

    follows: str
    require: Callable[[str], None]
    open: Callable[[str, Sequence[str]], Recogniser]
    asks_for_types: bool = False


RECOGNISERS = {
    "spacy": RecogniserKind("PACKAGE or FOLDER", require_spacy, open_spacy),
    "gliner": RecogniserKind("FOLDER", require_gliner, open_gliner, asks_for_types=True),
    "gazetteer": RecogniserKind(
        "FILE", lambda name: require_file(Path(name)), lambda name, _: read_gazetteer(Path(name))
    ),
}
"""By the prefix of ``--ner``."""


@dataclass(frozen=True)
class NamedRecogniser:
    """A recogniser by its name, which is there but not yet opened."""

    kind: RecogniserKind
    name: str

    def open(self, types: Sequence[str] = ()) -> Recogniser:
        """Open it. Raises `UserError` where it cannot be loaded."""
        return self.kind.open(self.name, types)


def find_recogniser(value: str) -> NamedRecogniser:
    """Return the recogniser of ``PREFIX:NAME``.

    Raises `UserError` for an unknown prefix, with the nearest, for a missing name, and where what is named, or the
    package that reads it, is not there.
    """
    prefix, colon, name = value.partition(":")
    known = ", ".join(f"{own}:{kind.follows}" for own, kind in RECOGNISERS.items())
    if prefix not in RECOGNISERS:
        raise UserError(f"--ner {value}: unknown recogniser {prefix!r}; {suggest_name(prefix, RECOGNISERS)} ({known})")
    if not colon or not name:
        raise UserError(f"--ner {value}: no name behind the prefix; expected {prefix}:{RECOGNISERS[prefix].follows}")
    RECOGNISERS[prefix].require(name)
    return NamedRecogniser(RECOGNISERS[prefix], name)
