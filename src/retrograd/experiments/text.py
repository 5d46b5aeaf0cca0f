"""Read the text of an experiment (TOML, JSON and ``section.setting=value``) strictly, and write it in full.

``objective.kind`` is the class of the objective, ``data.kind`` that of its kind. Everything here works on plain tables;
`retrograd.experiments.experiment` makes the value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar, get_type_hints

from retrograd.experiments.data.kinds import kind_names, read_data
from retrograd.experiments.data.source import DataKind
from retrograd.objectives import OBJECTIVES, Objective
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, parse_toml_value, suggest_name
from retrograd.util.records import read_record, read_toml, read_value, record_mapping
from retrograd.util.text_files import read_json

__all__ = ["assign", "flatten_settings", "read_experiment", "read_file", "update", "write_data", "write_objective"]

ExperimentType = TypeVar("ExperimentType")


def read_file(path: Path) -> dict[str, object]:
    """Return the tables of a ``.toml`` or ``.json`` file. Raises `UserError` with the file and the place."""
    values = read_json(path) if path.suffix == ".json" else read_toml(path)
    if not isinstance(values, dict):
        raise UserError(f"{path}: expected a table of settings")
    return dict(values)


def read_experiment(kind: type[ExperimentType], values: Mapping[str, object], where: str) -> ExperimentType:
    """Return an experiment from its tables, the objective and the data by their kind; ``kind`` is its class.

    Raises `UserError`, beginning with ``where``, for an unknown key (naming the nearest), a wrong type, and settings
    that do not fit each other.
    """
    hints = get_type_hints(kind)
    readers: dict[str, Callable[[object, str], object]] = {"objective": _read_objective, "data": read_data}
    sections = {}
    for name, value in values.items():
        if name not in hints:
            raise UserError(f"{where}: unknown key {name!r}; {suggest_name(name, hints)}")
        read = readers.get(name) or partial(read_value, hints[name])
        sections[name] = read(value, f"{where}: {name}")
    try:
        return kind(**sections)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def write_objective(objective: Objective) -> JsonObject:
    """Return the table from which an equal objective is read."""
    return {"kind": type(objective).__name__} | record_mapping(objective)


def write_data(data: DataKind) -> JsonObject:
    """Return the table from which equal settings of the data are read."""
    return {"kind": data.kind} | record_mapping(data)


def assign(values: dict[str, object], assignments: Sequence[str]) -> dict[str, object]:
    """Return ``values``, the tables of a whole experiment, with ``section.setting=value`` assignments applied.

    Values are written as in TOML; bare words are text. Another ``kind`` begins with its own defaults. Raises
    `UserError` for an unknown setting, naming the nearest.
    """
    values = dict(values)
    for assignment in assignments:
        key, text = _split(assignment)
        *sections, setting = key.split(".")
        if setting == "kind" and sections in (["objective"], ["data"]):
            values[sections[0]] = {"kind": text} | _defaults(text)
            continue
        table = values
        for section in sections:
            inner = table.get(section)
            if not isinstance(inner, dict):
                raise UserError(f"--set {assignment}: no section {section!r}; {suggest_name(section, table)}")
            table = inner
        if setting not in table:
            raise UserError(f"--set {assignment}: unknown key {setting!r}; {suggest_name(setting, table)}")
        table[setting] = parse_toml_value(text)
    return values


def update(values: Mapping[str, object], changes: Mapping[str, object], where: str) -> dict[str, object]:
    """Return ``values``, the tables of a whole experiment, with the settings that ``changes`` names.

    A section is changed setting by setting; another ``kind`` begins with its own defaults. Raises `UserError`,
    beginning with ``where``, for an unknown section or setting, naming the nearest.
    """
    updated = dict(values)
    for name, change in changes.items():
        if name not in values:
            raise UserError(f"{where}: unknown key {name!r}; {suggest_name(name, values)}")
        table = values[name]
        if not (isinstance(table, Mapping) and isinstance(change, Mapping)):
            updated[name] = change
            continue
        kind = change.get("kind", table.get("kind"))
        if kind != table.get("kind"):
            table = {"kind": kind} | _defaults(str(kind))
        for setting in change:
            if setting not in table:
                raise UserError(f"{where}: {name}: unknown key {setting!r}; {suggest_name(str(setting), table)}")
        updated[name] = {**table, **change}
    return updated


def flatten_settings(values: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Return settings by their dotted names: ``training.passages``."""
    flat: dict[str, object] = {}
    for name, value in values.items():
        flat |= flatten_settings(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def _split(assignment: str) -> tuple[str, str]:
    """Return the key and the text of an assignment."""
    try:
        assignment.encode()
    except UnicodeEncodeError:  # bytes of the command line that are no text
        raise UserError(f"--set {assignment!r}: not UTF-8; write it in UTF-8, as experiment files are") from None
    key, equals, text = assignment.partition("=")
    if not equals:
        raise UserError(f"--set {assignment}: expected section.setting=value")
    return key.strip(), text.strip()


def _defaults(kind: str) -> JsonObject:
    """Return the settings of an objective or a kind of data; none for another name, which reading refuses."""
    if kind in kind_names():
        return record_mapping(read_data({"kind": kind}, "data"))
    objective = next((objective_kind() for objective_kind in OBJECTIVES if objective_kind.__name__ == kind), None)
    return {} if objective is None else record_mapping(objective)


def _read_objective(values: object, where: str) -> Objective:
    kinds = {kind.__name__: kind for kind in OBJECTIVES}
    if not isinstance(values, Mapping) or "kind" not in values:
        raise UserError(f"{where}: needs 'kind', one of {', '.join(kinds)}")
    kind = values["kind"]
    if not isinstance(kind, str) or kind not in kinds:
        raise UserError(f"{where}: no objective {kind!r}; {suggest_name(str(kind), kinds)}")
    settings = {key: value for key, value in values.items() if key != "kind"}
    return read_record(kinds[kind], settings, f"{where} ({kind})")
