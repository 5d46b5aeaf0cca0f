"""How a file begins, by which its format is recognised: its first line, and its first record in any container."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retrograd.data.rows import first_rows, row_kind
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject, peek_json_object, require_file

__all__ = ["DOCBIN_SUFFIX", "RECORD_FIELDS", "FileBeginning"]

RECORD_FIELDS = ("text", "tokens", "head", "tail", "relation", "label")
"""Fields by which an object of columns is told from one of objects by id."""

DOCBIN_SUFFIX = ".spacy"
"""How the names of spaCy's files of documents end."""


@dataclass(frozen=True)
class FileBeginning:
    """The beginning of a file, or a folder; ``line`` is the first line of text that is not blank, if there is any."""

    path: Path
    line: str = ""
    is_folder: bool = False

    @classmethod
    def of(cls, path: Path) -> FileBeginning:
        """Read the beginning of a file. Raises `UserError` for one that is missing, empty or damaged."""
        with suppress(OSError):  # a name too long
            if path.is_dir():
                return cls(path, is_folder=True)
        require_file(path)
        if path.suffix == DOCBIN_SUFFIX or row_kind(path) in ("parquet", "arrow"):
            return cls(path)
        return cls(path, text_files.first_line(path, "relation instances")[1])

    @property
    def is_list(self) -> bool:
        """Return whether the file is a JSON list of objects, or begins as one."""
        start = self.line.lstrip()
        return start.startswith("[") and (start[1:].lstrip() or "{")[0] in "{]"

    @property
    def is_lines(self) -> bool:
        """Return whether each line is a record, judged by the first."""
        return peek_json_object(self.line) is not None and self.row == self.content

    @cached_property
    def content(self) -> JsonObject:
        """The JSON object that the file or its first line is; empty for anything else."""
        if not self.line.lstrip().startswith("{"):
            return {}
        record = peek_json_object(self.line)
        if record is None:  # an object over several lines
            with suppress(UserError):
                whole = text_files.read_json(self.path)
                record = whole if isinstance(whole, dict) else None
        return record or {}

    @property
    def record(self) -> JsonObject:
        """The first record of JSON Lines, of a JSON list or of a table; empty where there is none."""
        return self.content or self.row

    @cached_property
    def row(self) -> JsonObject:
        """The first record that is sound in any container of `retrograd.data.rows`; empty where there is none."""
        if self.path.suffix != DOCBIN_SUFFIX:
            with suppress(UserError):
                return next(iter(first_rows(self.path, RECORD_FIELDS)), {})
        return {}

    def has(self, *names: str) -> bool:
        """Return whether the first record has all of these fields."""
        return all(name in self.record for name in names)
