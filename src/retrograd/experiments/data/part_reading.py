"""Read the parts of data one example at a time, with every malformed record reported, not only the first."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from retrograd.data.documents.folder import folder_bytes
from retrograd.data.hub import data_path
from retrograd.experiments.data.findings import Findings
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError
from retrograd.util.progress import bar
from retrograd.util.text_files import Refuse, count_lines

__all__ = ["BaseFile", "DataPart", "DataParts", "LabelledExample", "base_bytes", "base_file", "example_file"]

T = TypeVar("T")
LabelledExample = tuple[Example, str | None]
"""An example with its label, None where the task has none."""


@dataclass(frozen=True)
class DataPart:
    """One file, or a part of the built-in data; ``examples`` reads it anew at each call, with labels of relations."""

    name: str
    source: str
    examples: Callable[[], Iterator[LabelledExample]]


@dataclass(frozen=True)
class BaseFile:
    """The file ``source`` of a knowledge base; ``passages`` reads it anew at each call."""

    source: str
    passages: Callable[[], Iterator[Passage]]


@dataclass(frozen=True)
class DataParts:
    """The parts of one set of data, and what their examples are answered from.

    That is ``base`` or, where the training instances are the passages, ``neighbours``. ``task`` is None where there is
    none, or none can be made. ``answers_stand_in_base`` says that passages are expected to hold answers word for word.
    """

    task: Task | None
    parts: tuple[DataPart, ...]
    base: BaseFile | None = None
    neighbours: Sequence[Passage] = ()
    answers_stand_in_base: bool = False


def example_file(
    name: str, source: str, read: Callable[[Path, Refuse], Iterable[Example]], findings: Findings
) -> DataPart:
    """Return the part that ``read`` reads from a file; what it refuses is a finding."""

    def examples() -> Iterator[LabelledExample]:
        refuse = findings.refusing(name, source)
        for example in _with_progress(name, source, lambda: read(data_path(source), refuse), findings):
            yield example, None

    return DataPart(name, source, examples)


def base_bytes(source: str) -> int:
    """Return the size of the file or of the folder of a knowledge base; 0 for one that does not exist."""
    if os.path.isdir(source):
        return folder_bytes(Path(source))
    return os.path.getsize(source) if os.path.isfile(source) else 0


def base_file(source: str, read: Callable[[Path, Refuse], Iterable[Passage]], findings: Findings) -> BaseFile:
    """Return the base that ``read`` reads from a file. Only the first reading reports what is malformed."""
    readings: list[Refuse] = [findings.refusing("base", source)]

    def passages() -> Iterator[Passage]:
        first = bool(readings)
        refuse = readings.pop() if first else _ignore
        return _with_progress("base", source, lambda: read(data_path(source), refuse), findings if first else None)

    return BaseFile(source, passages)


def _ignore(_: UserError) -> None:
    pass


def _with_progress(name: str, source: str, read: Callable[[], Iterable[T]], findings: Findings | None) -> Iterator[T]:
    """Yield what ``read`` yields, with a progress bar; an error that ends the reading is a finding."""
    try:
        with bar(f"reading {source}", count_lines(Path(source)), "records") as advance:
            for record in read():
                advance(1)
                yield record
    except UserError as error:
        if findings is not None:
            findings.fault(name, source, error)
