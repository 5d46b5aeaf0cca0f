"""Read brat's standoff annotations: a folder of texts (``a.txt``) with annotations beside them (``a.ann``), or one such
file.

    T1<TAB>Person 0 3<TAB>Ada
    T2<TAB>City 13 16;20 24<TAB>Ulm Mitte
    R1<TAB>lives_in Arg1:T1 Arg2:T2

A line with T is an entity, with its type and its offsets in characters of the text, line ends included, the end
exclusive; a discontinuous one reaches from its first character to its last. A line with R is a relation from Arg1, the
head, to Arg2, the tail. Other lines (attributes, events, notes, equivalences) are not used.

The text of an instance is the line that holds both entities, or the lines from the one to the other. A pair without a
relation is no instance.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from retrograd.data.record_fields import locate_errors
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.documents import Mention
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import require_file
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_brat", "read_brat"]

_SUFFIX = ".ann"
_ENTITY = re.compile(r"(T\S*)\t(\S+) (\d{1,12} \d{1,12}(?:;\d{1,12} \d{1,12})*)(?:\t(.*))?")
_RELATION = re.compile(r"(R\S*)\t(\S+) Arg1:(\S+) Arg2:(\S+)\s*")


def holds_brat(beginning: FileBeginning) -> bool:
    """Return whether it is a folder with annotations, or a file of them."""
    return beginning.path.suffix == _SUFFIX if not beginning.is_folder else any(beginning.path.glob(f"*{_SUFFIX}"))


def read_brat(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Yield an instance for each relation, in the order of files and annotations.

    Malformed annotations are refused, with file and line. Raises `UserError` for a folder without annotations, and for
    a missing text.
    """
    is_folder = os.path.isdir(path)  # which answers for a name too long, too
    files = sorted(path.glob(f"*{_SUFFIX}")) if is_folder else [path]
    if not files:
        raise UserError(f"{path} is a folder without annotations; expected pairs of a.txt and a{_SUFFIX}")
    for file in files:
        prefix = f"{file.stem}:" if is_folder else ""
        yield from _read_file(file, prefix, refuse)


def _read_file(path: Path, prefix: str, refuse: Refuse) -> Iterator[RelationInstance]:
    text = _read_text(path)
    if not path.stat().st_size:  # nothing is annotated
        return
    entities: dict[str, Mention] = {}
    relations: list[tuple[int, re.Match[str]]] = []
    for number, line in text_files.read_lines(path, refuse):
        with locate_errors(path, f"line {number}", refuse):
            if line.startswith("T"):
                name, entity = _read_entity(line, text)
                entities[name] = entity
            elif line.startswith("R"):
                relations.append((number, _match_relation(line)))
    seen: set[str] = set()
    for number, match in relations:
        with locate_errors(path, f"line {number}", refuse):
            name, label, head, tail = match.groups()
            if name in seen:
                raise UserError(f"a second relation is named {name!r}; give each a name of its own")
            seen.add(name)
            yield _make_instance(
                f"{prefix}{name}", text, label, _find(entities, head), _find(entities, tail), path.stem
            )


def _read_text(path: Path) -> str:
    """Return the text that annotations are of, with its line ends as they are, since offsets count them."""
    file = path.with_suffix(".txt")
    require_file(file)
    try:
        return file.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not UTF-8 (byte {error.start + 1}); re-save the file as UTF-8") from None


def _read_entity(line: str, text: str) -> tuple[str, Mention]:
    """Return name and mention of a line. Raises `UserError` where its words are others than those of the text."""
    match = _ENTITY.fullmatch(line)
    if match is None:
        raise UserError(f"{line[:60]!r} is no entity; expected a name, a tab, type, start and end, a tab and its words")
    name, kind, offsets, words = match.groups()
    places = [int(offset) for offset in re.split("[ ;]", offsets)]
    span = Span(min(places), max(places))
    if span.end > len(text):
        raise UserError(f"{name} {span} lies outside the text of {len(text)} characters; is it the text of this file?")
    if words is not None and len(places) == 2 and _fold(span.of(text)) != _fold(words):
        raise UserError(
            f"{name} is {words!r}, but {span.of(text)[:60]!r} stands at {span} of the text; offsets count characters, "
            f"line ends included: annotate this text, or save it with the line ends that it had"
        )
    return name, Mention(span, kind)


def _fold(words: str) -> str:
    return "".join(words.split())


def _match_relation(line: str) -> re.Match[str]:
    match = _RELATION.fullmatch(line)
    if match is None:
        raise UserError(f"{line[:60]!r} is no relation; expected a name, a tab, and a label with Arg1:T1 Arg2:T2")
    return match


def _find(entities: Mapping[str, Mention], name: str) -> Mention:
    if name not in entities:
        raise UserError(f"no entity is named {name!r}; give it a line of its own, as in T1<TAB>Person 0 3<TAB>Ada")
    return entities[name]


def _make_instance(id_: str, text: str, label: str, head: Mention, tail: Mention, document: str) -> RelationInstance:
    """Return the instance of two entities, with the lines that they stand in."""
    start = text.rfind("\n", 0, min(head.span.start, tail.span.start)) + 1
    end = text.find("\n", max(head.span.end, tail.span.end))
    lines = text[start : end if end >= 0 else len(text)].rstrip("\r")
    spans = [Span(mention.span.start - start, mention.span.end - start) for mention in (head, tail)]
    return RelationInstance(id_, lines, spans[0], spans[1], label, head.kind, tail.kind, document)
