"""The files of the tests of data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from retrograd.util.guards import JsonObject
from retrograd.util.text_files import write_jsonl


def write_lines(path: Path, records: Sequence[JsonObject]) -> str:
    """Write records as JSON Lines, and return the file's name as settings have it."""
    write_jsonl(path, records)
    return str(path)
