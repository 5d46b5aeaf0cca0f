"""The kinds of data that an experiment can have. A new one is a file and a line here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from retrograd.experiments.data.corpus import CorpusData
from retrograd.experiments.data.findings import Findings
from retrograd.experiments.data.free_answers import DialogueData, QuestionData
from retrograd.experiments.data.part_reading import DataParts, base_file
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.data.source import DataKind
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, suggest_name
from retrograd.util.records import read_record
from retrograd.util.text_files import Refuse

__all__ = ["KINDS", "file_kinds", "file_settings", "kind_names", "open_data", "open_files", "own_records", "read_data"]

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
    sources = {"train": data.train, "more": data.more, "dev": data.dev, "test": data.test}
    parts = data.open_parts({name: source for name, source in sources.items() if source}, findings)
    return replace(parts, base=data.open_base(findings))


def file_settings(kind: str, format: str) -> DataKind:  # noqa: A002 (the field's word)
    """Return the settings by which bare files of a kind and format are read; of a corpus those of questions' bases.

    ``kind`` is one of `file_kinds`. Raises `UserError` for a format that the kind does not have.
    """
    if kind == _CORPUS:
        return read_record(QuestionData, {"base_format": format}, f"--kind {_CORPUS}")
    return next(candidate for candidate in KINDS if candidate.kind == kind).for_files(format)


def own_records(path: Path, kind: str, settings: DataKind, refuse: Refuse) -> Iterator[JsonObject]:
    """Yield the records of a file of a ``kind`` as lines of this project's own format; malformed ones go to ``refuse``.

    ``settings`` are those of `file_settings`.
    """
    if kind == _CORPUS and isinstance(settings, CorpusData):
        passages = settings.passages(path, refuse)
        return ({"id": passage.id, "title": passage.title, "text": passage.text} for passage in passages)
    return settings.own_records(path, refuse)


def open_files(paths: Sequence[Path], kind: str, settings: DataKind, findings: Findings) -> list[DataParts]:
    """Open bare files of a ``kind`` with `file_settings` as the parts of one set of data; each corpus by itself.

    Raises `UserError` for a name that stands twice.
    """
    names = [str(path) for path in paths]
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{repeated} is named twice; name each file once")
    if kind == _CORPUS and isinstance(settings, CorpusData):
        return [DataParts(None, (), base_file(name, settings.passages, findings)) for name in names]
    return [settings.open_parts({name: name for name in names}, findings)]
