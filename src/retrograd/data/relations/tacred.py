"""The labels of TACRED (`retrograd.data.relations.readers.tacred`), and the patches that correct them.

TACREV (Alt et al. 2020, "TACRED Revisited") is a list of ``{"id": …, "relation": …}``: these labels are replaced, all
others stay. Re-TACRED (Stoica et al. 2021) is an object ``{id: relation}`` for each part of the data: these labels are
replaced, and instances whose id is absent are dropped. Which of the two a patch is, its outermost bracket says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrograd.data.record_fields import (
    name_type,
    read_id,
    read_string,
    require_fields,
    require_new,
)
from retrograd.data.relations.instance import RelationInstance
from retrograd.types import UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject

__all__ = ["NO_RELATION", "RETACRED_LABELS", "TACRED_LABELS", "LabelPatch", "read_patch"]

NO_RELATION = "no_relation"
"""The negative label of TACRED, TACREV and Re-TACRED."""

_SHARED_LABELS = (
    NO_RELATION,
    "org:alternate_names",
    "org:dissolved",
    "org:founded",
    "org:founded_by",
    "org:member_of",
    "org:members",
    "org:number_of_employees/members",
    "org:political/religious_affiliation",
    "org:shareholders",
    "org:top_members/employees",
    "org:website",
    "per:age",
    "per:cause_of_death",
    "per:charges",
    "per:children",
    "per:cities_of_residence",
    "per:city_of_birth",
    "per:city_of_death",
    "per:countries_of_residence",
    "per:country_of_birth",
    "per:country_of_death",
    "per:date_of_birth",
    "per:date_of_death",
    "per:employee_of",
    "per:origin",
    "per:other_family",
    "per:parents",
    "per:religion",
    "per:schools_attended",
    "per:siblings",
    "per:spouse",
    "per:stateorprovince_of_birth",
    "per:stateorprovince_of_death",
    "per:stateorprovinces_of_residence",
    "per:title",
)

TACRED_LABELS = (
    *_SHARED_LABELS,
    "org:city_of_headquarters",
    "org:country_of_headquarters",
    "org:parents",
    "org:stateorprovince_of_headquarters",
    "org:subsidiaries",
    "per:alternate_names",
)
"""The 42 labels of TACRED and TACREV, ``no_relation`` among them."""

RETACRED_LABELS = (
    *_SHARED_LABELS,
    "org:city_of_branch",
    "org:country_of_branch",
    "org:stateorprovince_of_branch",
    "per:identity",
)
"""The 40 labels of Re-TACRED, ``no_relation`` among them."""


@dataclass(frozen=True)
class LabelPatch:
    """Corrected labels by instance id, from the file ``source``; a ``complete`` one drops instances it lacks."""

    source: Path
    relations: Mapping[str, str]
    complete: bool

    def apply(self, instances: Sequence[RelationInstance], source: str) -> list[RelationInstance]:
        """Return the instances of the file ``source`` with these labels, in order.

        Raises `UserError` for an id of the patch that is not among them.
        """
        strays = self.relations.keys() - {instance.id for instance in instances}
        if strays:
            first = next(id_ for id_ in self.relations if id_ in strays)
            more = f" and {len(strays) - 1} more ids" if len(strays) > 1 else ""
            raise UserError(
                f"{self.source}: id {first!r}{more} not found in {source}; give the patch of this part of the data"
            )
        return [
            replace(instance, relation=self.relations.get(instance.id, instance.relation))
            for instance in instances
            if not self.complete or instance.id in self.relations
        ]


def read_patch(path: Path) -> LabelPatch:
    """Read a patch in TACREV's format (a list) or in Re-TACRED's (an object).

    Raises `UserError` with the file, and where it can be known line and record, for a repeated id, a relation
    that is not a string, and anything else that is malformed.
    """
    first = next((line for _, line in text_files.read_lines(path) if line.strip()), "")
    if first.lstrip().startswith("["):
        return LabelPatch(path, _read_list(path), complete=False)
    value = text_files.read_json(path)
    if not isinstance(value, dict):
        raise UserError(
            f"{path} is {name_type(value)}; expected a patch: a list of id and relation, or an object by id"
        )
    if not value:
        raise UserError(f"{path} is an empty object, and would drop every instance; expected ids with their relations")
    return LabelPatch(path, {id_: _require_relation(path, id_, value) for id_ in value}, complete=True)


def _read_list(path: Path) -> dict[str, str]:
    relations: dict[str, str] = {}
    first_places: dict[str, str] = {}
    for number, line, record in text_files.read_json_list(path):
        try:
            require_fields(record, ("id", "relation"))
            id_ = read_id(record, number)
            require_new(id_, f"record {number}", first_places)
            relations[id_] = read_string(record, "relation")
        except UserError as error:
            raise UserError(f"{path}, line {line}, record {number}: {error}") from None
    return relations


def _require_relation(path: Path, id_: str, value: JsonObject) -> str:
    relation = value[id_]
    if not isinstance(relation, str):
        raise UserError(f"{path}: the relation of id {id_!r} is {name_type(relation)}; expected a string")
    return relation
