"""Readers of TACRED's file format and of the patches that correct its labels: TACREV and Re-TACRED.

Zhang et al. 2017, "Position-aware Attention and Supervised Data Improve Slot Filling". The corpus is licensed by the
Linguistic Data Consortium and is not shipped; ``examples/tacred_like`` holds sentences of our own in its format.

A file is one JSON list of records; spans count tokens from 0 and their ends are inclusive::

    {"id": "a1", "relation": "per:title", "token": ["Ines", "Moravec", ",", "a", "pilot"],
     "subj_start": 0, "subj_end": 1, "obj_start": 4, "obj_end": 4, "subj_type": "PERSON", "obj_type": "TITLE"}

The subject is the head, the object the tail. Other fields (``docid``, ``stanford_pos``, …) are not used.

The text of an instance is its tokens joined by one space, with the Penn Treebank's written-out brackets and quotation
marks turned back (``-LRB-`` is ``(``, ``''`` is ``"``): pretrained models have read the signs, not their names, and
cut ``-LRB-`` into several tokens.

TACREV (Alt et al. 2020, "TACRED Revisited") is a list of ``{"id": …, "relation": …}``: these labels are replaced, all
others stay. Re-TACRED (Stoica et al. 2021) is an object ``{id: relation}`` for each part of the data: these labels are
replaced, and instances whose id is absent are dropped. Which of the two a patch is, its outermost bracket says.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from retrograd.data.record_fields import (
    locate_tokens,
    name_type,
    read_id,
    read_optional_string,
    read_records,
    read_string,
    read_tokens,
    read_whole_number,
    require_fields,
    require_new,
)
from retrograd.data.relations.instance import RelationInstance
from retrograd.types import Span, UserError
from retrograd.util import text_files
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse, raise_error

__all__ = ["NO_RELATION", "RETACRED_LABELS", "TACRED_LABELS", "LabelPatch", "read_patch", "read_tacred"]

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

_REQUIRED = ("id", "token", "subj_start", "subj_end", "obj_start", "obj_end", "subj_type", "obj_type")
_SIGNS = {
    "-LRB-": "(",
    "-RRB-": ")",
    "-LSB-": "[",
    "-RSB-": "]",
    "-LCB-": "{",
    "-RCB-": "}",
    "``": '"',
    "''": '"',
}


def read_tacred(path: Path, refuse: Refuse = raise_error) -> Iterator[RelationInstance]:
    """Return the instances of a file in TACRED's format, types and ids with them; ``relation`` may be missing.

    Refuses, with file, line and record, what is out of range or there twice. Raises `UserError` for what is no JSON.
    """
    records = (
        (f"line {line}, record {number}", number, value) for number, line, value in text_files.read_json_list(path)
    )
    return read_records(path, records, _read_instance, refuse)


def _read_instance(record: JsonObject, number: int) -> RelationInstance:
    require_fields(record, _REQUIRED)
    tokens = [_SIGNS.get(token.upper(), token) for token in read_tokens(record, "token")]
    return RelationInstance(
        id=read_id(record, number),
        text=" ".join(tokens),
        head=_read_span(record, "subj", tokens),
        tail=_read_span(record, "obj", tokens),
        relation=read_optional_string(record, "relation"),
        head_type=read_string(record, "subj_type"),
        tail_type=read_string(record, "obj_type"),
    )


def _read_span(record: JsonObject, role: str, tokens: Sequence[str]) -> Span:
    """Return the character offsets of ``role``_start to ``role``_end, both inclusive."""
    start, end = (read_whole_number(record, f"{role}_{side}") for side in ("start", "end"))
    if not 0 <= start <= end < len(tokens):
        raise UserError(
            f"{role}_start {start} and {role}_end {end} are no span of {len(tokens)} tokens; "
            f"positions count tokens from 0, and the end is the last token itself"
        )
    return locate_tokens(tokens, (start, end + 1), role)


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
