"""Recognise the names of a list: a gazetteer, which needs no library and no model.

A file has a name and its type a line, with a tab between them (a first line ``name<TAB>type`` is a header), or JSON
Lines: ``{"name": "Ada Lovelace", "type": "PERSON"}``, also in the words of spaCy's patterns, ``pattern`` and ``label``.

* **Words.** A name begins and ends where words do: "art" is not found in "party". In scripts without spaces each
  character is a word. White space in a name is any white space in the text, a line end included.
* **Case.** A name with a capital letter is found as it is written: "May", not "may". A name without one is found in any
  case: "green tea", "Green tea" and "GREEN TEA".
* **The longest name wins**, read from the left; names that are found do not overlap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from retrograd.data.record_fields import find_field, locate_errors, missing_field, read_string, refuse_unknown
from retrograd.data.relations.recognisers.recogniser import Entity, Recognised
from retrograd.metrics.words import fold, token_spans
from retrograd.types import Span, UserError
from retrograd.util.text_files import Refuse, first_line, raise_error, read_jsonl, read_lines, split_row

__all__ = ["Gazetteer", "read_gazetteer", "read_names"]

_NAMES, _TYPES = ("name", "pattern"), ("type", "label")
_HEADER = ["name", "type"]


@dataclass(frozen=True)
class _Entry:
    """A name with single spaces, and its type."""

    name: str
    kind: str

    @property
    def has_case(self) -> bool:
        """Return whether the name is found only as it is written."""
        return self.name != self.name.lower()


@dataclass(frozen=True)
class Gazetteer:
    """A recogniser of the names that were added to it."""

    language: str = ""
    _entries: dict[str, list[_Entry]] = field(default_factory=dict)
    """By the folded name: those that are found as they are written come first."""
    _lengths: dict[str, list[int]] = field(default_factory=dict)
    """By the folded first token of a name: numbers of tokens that such names have, the largest first."""

    def add(self, name: str, kind: str) -> None:
        """Add a name. Raises `UserError` for a blank one, and for one that has another type already."""
        entry = _Entry(" ".join(name.split()), kind)
        tokens = list(token_spans(entry.name))
        if not tokens:
            raise UserError(f"the name {name!r} is blank; give it a visible character")
        key = fold(entry.name)
        entries = self._entries.setdefault(key, [])
        for other in entries:
            same = other.name == entry.name or not (other.has_case or entry.has_case)
            if same and other.kind != kind:
                raise UserError(f"{name!r} has the type {kind!r}, and before {other.kind!r}; give each name one type")
        entries.append(entry)
        entries.sort(key=lambda one: not one.has_case)
        lengths = self._lengths.setdefault(fold(entry.name[slice(*tokens[0])]), [])
        if len(tokens) not in lengths:
            lengths.append(len(tokens))
            lengths.sort(reverse=True)

    def recognise(self, text: str) -> Recognised:
        """Return the names in a text."""
        return Recognised(tuple(self._find(text)))

    def _find(self, text: str) -> Iterator[Entity]:
        tokens = list(token_spans(text))
        place = 0
        while place < len(tokens):
            found = self._longest(text, tokens, place)
            if found is None:
                place += 1
                continue
            length, entity = found
            yield entity
            place += length

    def _longest(self, text: str, tokens: list[tuple[int, int]], place: int) -> tuple[int, Entity] | None:
        """Return the longest name that begins at a token, and its number of tokens."""
        start, end = tokens[place]
        for length in self._lengths.get(fold(text[start:end]), ()):
            if place + length > len(tokens):
                continue
            end = tokens[place + length - 1][1]
            written = " ".join(text[start:end].split())
            for entry in self._entries.get(fold(written), ()):
                if entry.name == written or not entry.has_case:
                    return length, Entity(Span(start, end), entry.kind)
        return None


def read_gazetteer(path: Path) -> Gazetteer:
    """Return the recogniser of a file's names. Raises `UserError` with file and line for what is malformed."""
    gazetteer = Gazetteer()
    for number, name, kind in read_names(path):
        with locate_errors(path, f"line {number}"):
            gazetteer.add(name, kind)
    return gazetteer


def read_names(path: Path, refuse: Refuse = raise_error) -> Iterator[tuple[int, str, str]]:
    """Yield line, name and type of every entry of a file; malformed lines are refused. Raises as readers do."""
    _, line = first_line(path, "names with their types")
    return _read_records(path, refuse) if line.lstrip().startswith("{") else _read_rows(path, refuse)


def _read_records(path: Path, refuse: Refuse) -> Iterator[tuple[int, str, str]]:
    for number, record in read_jsonl(path, refuse):
        with locate_errors(path, f"line {number}", refuse):
            refuse_unknown(record, (*_NAMES, *_TYPES, "id", "metadata"))
            name, kind = (find_field(record, synonyms) for synonyms in (_NAMES, _TYPES))
            if name is None or kind is None:
                raise missing_field(record, "name" if name is None else "type")
            if isinstance(record[name], list):
                raise UserError(
                    f"{name!r} is a list; patterns of tokens need spaCy: save them in a pipeline, and name "
                    f"it with --ner spacy:FOLDER"
                )
            yield number, read_string(record, name), read_string(record, kind)


def _read_rows(path: Path, refuse: Refuse) -> Iterator[tuple[int, str, str]]:
    for number, line in _skip_header(read_lines(path, refuse)):
        if not line.strip():
            continue
        with locate_errors(path, f"line {number}", refuse):
            cells = [cell.strip() for cell in split_row(line, 2)]
            if len(cells) != 2:
                raise UserError(f"{len(cells)} columns in {line[:60]!r}; expected a name, a tab and its type")
            yield number, cells[0], cells[1]


def _skip_header(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    for number, line in lines:
        if number > 1 or [cell.strip().lower() for cell in split_row(line, 2)] != _HEADER:
            yield number, line
