"""The kinds of data that an experiment can have. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retrograd.data.passages import read_corpus
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.free_answers import DialogueData, QuestionData
from retrograd.experiments.data.part_reading import DataParts, base_file
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind
from retrograd.types import UserError
from retrograd.util.guards import suggest_name
from retrograd.util.records import read_record

__all__ = ["KINDS", "file_kinds", "kind_names", "open_data", "open_files", "read_data"]

KINDS: tuple[type[DataKind], ...] = (RelationData, QuestionData, DialogueData)
"""All kinds of data; the first is that of an experiment which names none."""

_CORPUS = "corpus"
"""What bare files can hold besides: passages without questions."""


def kind_names() -> tuple[str, ...]:
    """Return the values that ``data.kind`` can have."""
    return tuple(kind.kind for kind in KINDS)


def file_kinds() -> tuple[str, ...]:
    """Return the names of what bare files can hold: the kinds, and "corpus"."""
    return (*kind_names(), _CORPUS)


def read_data(values: object, where: str) -> DataKind:
    """Read the settings of data from a mapping: of the kind that it names, or of the first of `KINDS`.

    Raises `UserError`, beginning with ``where``, for an unknown kind or key and for a value of another type.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} is {values!r}; expected a table of settings")
    names = kind_names()
    name = values.get("kind", names[0])
    kind = next((candidate for candidate in KINDS if candidate.kind == name), None)
    if kind is None:
        raise UserError(f"{where}: no kind of data {name!r}; {suggest_name(str(name), names)}")
    if "kind" not in values and "base" in values:
        others = " or ".join(f'"{candidate}"' for candidate in names if candidate != name)
        raise UserError(f"{where}: kind is missing, and {name} have no key 'base'; set kind = {others}")
    return read_record(kind, {key: value for key, value in values.items() if key != "kind"}, f"{where} ({name})")


def open_data(data: DataKind, findings: Findings) -> DataParts:
    """Open all parts of an experiment's data, to be read record by record."""
    sources = {"train": data.train, "dev": data.dev, "test": data.test}
    parts = data.open_parts({name: source for name, source in sources.items() if source}, findings)
    return replace(parts, base=data.open_base(findings))


def open_files(paths: Sequence[Path], kind: str, format: str, findings: Findings) -> list[DataParts]:  # noqa: A002
    """Open bare files as the parts of one set of data; of a corpus, each by itself. ``kind`` is one of `file_kinds`.

    Raises `UserError` for a format that the kind does not have, or a name that stands twice.
    """
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{repeated} is named twice; name each file once")
    if kind == _CORPUS:
        return [_open_corpus(name, format, findings) for name in names]
    settings = next(candidate for candidate in KINDS if candidate.kind == kind).for_files(format)
    return [settings.open_parts({name: name for name in names}, findings)]


def _open_corpus(source: str, format: str, findings: Findings) -> DataParts:  # noqa: A002
    base = base_file(source, lambda path, refuse: read_corpus(path, format, refuse), findings)
    return DataParts(None, (), base)
