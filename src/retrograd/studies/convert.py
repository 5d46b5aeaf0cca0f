"""Write data of any format that this package reads as JSON Lines of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.experiments.data.kinds import own_records
from retrograd.experiments.data.recognition import recognise_kind
from retrograd.studies.bare_files import bare_settings
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.text_files import raise_error, write_jsonl

__all__ = ["Conversion", "convert"]

_MOST_SAID = 20


@dataclass(frozen=True)
class Conversion:
    """What was written: records of a ``kind``; ``skipped`` were malformed."""

    kind: str
    file: Path
    records: int
    skipped: int

    def record(self) -> JsonObject:
        """Return it as JSON."""
        return {"kind": self.kind, "file": str(self.file), "records": self.records, "skipped": self.skipped}


def convert(
    source: Path,
    out: Path,
    kind: str | None = None,
    format: str = "auto",  # noqa: A002 (the field's word)
    changes: Sequence[str] = (),
    skip_malformed: bool = False,
) -> Conversion:
    """Write the records of a file or folder into ``out``, which is made whole or not at all.

    ``kind`` is one of `file_kinds`; None is what the file seems to hold. ``changes`` are assignments
    ``data.setting=value``. Raises `UserError` for the first malformed record, unless these are to be skipped, for a
    file that holds nothing, and for an ``out`` that is the file itself or not named ``.jsonl``.
    """
    if out.suffix != ".jsonl":
        raise UserError(f"{out} is not named as JSON Lines; write a name that ends in .jsonl")
    if out.resolve() == source.resolve() or source.resolve() in out.resolve().parents:
        raise UserError(f"{out} is, or lies in, what is to be converted; choose another place")
    held = kind or recognise_kind(source, changes)
    settings = bare_settings(held, format, changes)
    read = skipped = 0

    def skip(error: UserError) -> None:
        nonlocal skipped
        skipped += 1
        if skipped <= _MOST_SAID:
            say(f"skipped: {error}")

    def counted(records: Iterator[JsonObject]) -> Iterator[JsonObject]:
        nonlocal read
        for record in records:
            read += 1
            yield record
        if not read:
            raise UserError(f"{source} has no record that could be read as {held}; nothing is written")

    write_jsonl(out, counted(own_records(source, held, settings, skip if skip_malformed else raise_error)))
    if skipped > _MOST_SAID:
        say(f"{skipped - _MOST_SAID:,} more were skipped")
    return Conversion(held, out, read, skipped)
