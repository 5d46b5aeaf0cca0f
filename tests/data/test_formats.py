"""A file format is named in a type and has a reader; both, and the documentation, have the same formats."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from retrograd.data import dialogues, passages, questions, readers
from retrograd.data.relations import formats

DOCS = Path(__file__).parents[2] / "docs"
TABLES = {
    "relations": (
        formats.FORMATS,
        [known.name for known in formats.RELATION_FILE_FORMATS],
        readers.read_relations,
        "data.md",
        "## Formats",
    ),
    "questions": (
        questions.QUESTION_FORMATS,
        questions._READERS,
        readers.read_questions,
        "questions.md",
        "## Questions",
    ),
    "dialogue": (
        dialogues.DIALOGUE_FORMATS,
        dialogues._READERS,
        readers.read_dialogues,
        "questions.md",
        "## Dialogues",
    ),
    "corpus": (passages.CORPUS_FORMATS, passages._READERS, readers.read_passages, "passages.md", "## Formats"),
}
"""Of each kind of files: names, readers, the public function, and the page and section that explain the formats."""

kinds = pytest.mark.parametrize("kind", TABLES)


@kinds
def test_every_name_has_a_reader_and_every_reader_a_name(kind: str) -> None:
    names, table, *_ = TABLES[kind]
    assert names[0] == "auto"
    assert set(names[1:]) == set(table), "name a format both in the type of its setting and in _READERS"


@kinds
def test_the_public_reader_and_the_page_name_every_format(kind: str) -> None:
    names, _, reader, page, heading = TABLES[kind]
    _require_names(names, reader.__doc__ or "", f"the docstring of {reader.__name__} in data/readers.py")
    section = re.split(r"^## ", (DOCS / page).read_text("utf-8").split(f"\n{heading}\n", 1)[1], flags=re.MULTILINE)[0]
    _require_names(names, section, f"{heading} of docs/{page}")


def _require_names(names: Sequence[str], text: str, where: str) -> None:
    missing = [name for name in names[1:] if not re.search(rf"[`\"]{name}[`\"]", text)]
    assert not missing, f"{where} lacks the formats {', '.join(missing)}"
