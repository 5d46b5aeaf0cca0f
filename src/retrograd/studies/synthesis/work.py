"""The folder beside the pairs in which the work of a killed process is kept: settings, and one file for each block."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from retrograd.studies.synthesis.drafts import Draft
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.records import read_record, read_value
from retrograd.util.text_files import read_json, write_json

__all__ = ["Work", "WorkFolder"]

_SETTINGS = "settings.json"


@dataclass(frozen=True)
class Work:
    """The drafts of a finished block, and the seconds that they took."""

    drafts: tuple[Draft, ...]
    seconds: float


@dataclass(frozen=True)
class WorkFolder:
    """Finished blocks, numbered from 0. Each file is written whole or not at all."""

    path: Path

    @classmethod
    def beside(cls, out: Path) -> WorkFolder:
        """Return the work folder of the file ``out``: ``out.partial``."""
        return cls(out.with_name(f"{out.name}.partial"))

    def begin(self, settings: JsonObject) -> None:
        """Record the settings, or compare them with those that the folder was begun with.

        Raises `UserError` with the first that differs.
        """
        path = self.path / _SETTINGS
        if not path.exists():
            write_json(path, settings)
            return
        content = read_json(path)
        before = content if isinstance(content, dict) else {}
        for name, value in settings.items():
            if name not in before or before[name] != value:
                raise UserError(
                    f"{self.path} was begun with {name} {before.get(name)!r}, and now it is {value!r}; continue with "
                    f"the same, choose another file with --out, or remove that folder to begin anew"
                )

    def remove_if_unused(self) -> None:
        """Remove the folder unless work was begun in it."""
        if not (self.path / _SETTINGS).exists():
            self.remove()

    def has(self, block: int) -> bool:
        """Return whether a block is finished."""
        return self._file(block).exists()

    def save(self, block: int, work: Work) -> None:
        """Write a finished block."""
        write_json(self._file(block), {"seconds": work.seconds, "drafts": [one.record() for one in work.drafts]})

    def read(self, blocks: int) -> Iterator[Work]:
        """Yield the blocks 0 … ``blocks`` - 1. Raises `UserError` for a file that was edited or is damaged."""
        for block in range(blocks):
            yield _read_work(read_json(self._file(block)), self._file(block))

    def remove(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.path)

    def _file(self, block: int) -> Path:
        return self.path / f"block-{block:06d}.json"


def _read_work(content: object, path: Path) -> Work:
    match content:
        case {"seconds": seconds, "drafts": [*records]} if all(isinstance(one, dict) for one in records):
            drafts = tuple(read_record(Draft, cast(JsonObject, one), str(path)) for one in records)
            return Work(drafts, cast(float, read_value(float, seconds, f"{path}: seconds")))
        case _:
            raise UserError(f"{path} is no finished block; remove it, and this part of the work is done again")
