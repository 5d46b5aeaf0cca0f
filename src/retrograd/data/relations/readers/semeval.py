"""Read SemEval-2010 Task 8's files: blocks of a numbered sentence, a label, a comment and a blank line.

    1<TAB>"The <e1>cup</e1> holds <e2>tea</e2>."
    Content-Container(e2,e1)
    Comment: of our own

Label and comment may be missing, as in the test file handed to the task's participants.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from retrograd.data.record_fields import locate_errors, require_new
from retrograd.data.relations.beginnings import FileBeginning
from retrograd.data.relations.instance import RelationInstance
from retrograd.data.relations.readers.markers import parse_markers
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["holds_semeval", "read_semeval"]

_SENTENCE = re.compile(r"(\d+)\t\s*(\S.*)")


def holds_semeval(beginning: FileBeginning) -> bool:
    """Return whether the first line is a number, a tab and a sentence."""
    return _SENTENCE.fullmatch(beginning.line) is not None


def read_semeval(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Yield the instances of a file in the official SemEval-2010 Task 8 layout, `.gz` included.

    Labels are as written, None where missing. Refuses a line that fits nowhere, a second label, a repeated number and
    wrong entity marks.
    """
    first_places: dict[str, str] = {}
    for number, id_, sentence, relation in _read_semeval_blocks(path, refuse):
        with locate_errors(path, f"line {number}", refuse):
            require_new(id_, f"line {number}", first_places)
            yield parse_markers(sentence, id_, relation)


def _read_semeval_blocks(path: Path, refuse: Refuse) -> Iterator[tuple[int, str, str, str | None]]:
    """Yield (line, id, sentence, label) of every block; a numbered line opens one, blank lines are optional."""
    current: tuple[int, str, str] | None = None
    label: str | None = None
    for number, line in text_files.read_lines(path, refuse):
        stripped = line.strip()
        sentence = _SENTENCE.fullmatch(line)
        if sentence:
            if current:
                yield (*current, label)
            current, label = (number, sentence[1], _unquote(sentence[2].rstrip())), None
        elif not stripped or (current and stripped.startswith("Comment:")):
            continue
        elif current is None or len(stripped.split()) > 1:
            where = f"{path}, line {number}"
            expected = "expected a number, a tab and a sentence, or the label or comment of one"
            refuse(UserError(f"{where}: {expected}; found {stripped[:60]!r}"))
        elif label is not None:
            where = f"{path}, line {number}"
            message = f"a second label {stripped!r} for the sentence of line {current[0]}, already {label!r}"
            refuse(UserError(f"{where}: {message}; keep one"))
        else:
            label = stripped
    if current is None:
        raise UserError(f"{path} holds no sentence; expected lines of a number, a tab and a sentence")
    yield (*current, label)


def _unquote(sentence: str) -> str:
    """Return the sentence without the quotation marks that the format puts around it."""
    if len(sentence) > 1 and sentence[0] == sentence[-1] == '"':
        return sentence[1:-1].strip()
    return sentence
