"""A task of relation extraction as plain values, and back: labels with their words, constraints, and every style."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.tasks.relations.verbalisation import Verbalisation
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.records import read_record, record_mapping

__all__ = ["read_relation_extraction", "relation_extraction_record"]

_WORDS, _CONSTRAINTS = "relations", "type_constraints"


@dataclass(frozen=True)
class _Styles:
    """The settings of a task that are single words."""

    negative: str | None
    metric: str
    query_style: str
    neighbour_style: str
    name: str
    target_style: str
    input_style: str
    key_style: str
    exclude: str


def relation_extraction_record(task: RelationExtraction) -> JsonObject:
    """Return the plain mapping from which `read_relation_extraction` makes an equal task."""
    styles = _Styles(
        negative=task.negative,
        metric=task.metric,
        query_style=task.query_style,
        neighbour_style=task.neighbour_style,
        name=task.name,
        target_style=task.target_style,
        input_style=task.input_style,
        key_style=task.key_style,
        exclude=task.exclude,
    )
    constraints = None if task.constraints is None else task.constraints.to_record()
    return record_mapping(styles) | {_WORDS: task.verbalisation.to_record(), _CONSTRAINTS: constraints}


def read_relation_extraction(values: Mapping[str, object], where: str) -> RelationExtraction:
    """Return the task of a record. Raises `UserError`, beginning with ``where``, for anything else."""
    styles = read_record(
        _Styles, {name: value for name, value in values.items() if name not in (_WORDS, _CONSTRAINTS)}, where
    )
    written = values.get(_CONSTRAINTS)
    constraints = None if written is None else TypeConstraints.from_record(written, f"{where}: {_CONSTRAINTS}")
    verbalisation = Verbalisation.from_record(values.get(_WORDS), f"{where}: {_WORDS}")
    try:
        return RelationExtraction(
            verbalisation,
            styles.negative,
            styles.metric,
            styles.query_style,
            styles.neighbour_style,
            styles.name,
            styles.target_style,
            styles.input_style,
            styles.key_style,
            styles.exclude,
            constraints,
        )
    except UserError as error:
        raise UserError(f"{where}: {error}") from None
