"""What a pair of types permits: what was seen with it, else with either type, else everything."""

from __future__ import annotations

import json

import pytest

from retrograd.data.relations.instance import RelationInstance
from retrograd.tasks.relations.type_constraints import TypeConstraints
from retrograd.types import Span, UserError


def instance(head_type: str, tail_type: str, relation: str | None) -> RelationInstance:
    return RelationInstance("1", "a b", Span(0, 1), Span(2, 3), relation, head_type, tail_type)


TRAIN = [
    instance("PERSON", "CITY", "born_in"),
    instance("PERSON", "CITY", "lives_in"),
    instance("PERSON", "DATE", "born_on"),
    instance("ORG", "CITY", "seated_in"),
    instance("ORG", "", "unsure"),
    instance("", "", "never"),
    instance("PERSON", "ORG", None),
]
LEARNED = TypeConstraints.learn(TRAIN)


@pytest.mark.parametrize(
    ("head", "tail", "relations"),
    [
        ("PERSON", "CITY", {"born_in", "lives_in"}),
        ("ORG", "DATE", {"seated_in", "unsure", "born_on"}),  # unseen pair of seen types
        ("ORG", "ORG", {"seated_in", "unsure"}),
        ("LAW", "CITY", {"born_in", "lives_in", "seated_in"}),
        ("ORG", "", {"seated_in", "unsure"}),  # an unknown type is no type of its own
        ("", "DATE", {"born_on"}),
        ("LAW", "SUM", None),
        ("", "", None),
        ("person", "city", None),
    ],
)
def test_the_rule(head: str, tail: str, relations: set[str] | None) -> None:
    assert LEARNED.permitted_relations(head, tail) == relations


def test_a_record_comes_back() -> None:
    assert TypeConstraints.from_record(json.loads(json.dumps(LEARNED.to_record())), "labels.json") == LEARNED


@pytest.mark.parametrize("record", [None, [1], [{"head_type": "A"}], {"a": "b"}])
def test_a_wrong_record_is_refused(record: object) -> None:
    with pytest.raises(UserError, match=r"labels.json, entry 1: expected head_type, tail_type and a list"):
        TypeConstraints.from_record(record, "labels.json")


def test_data_without_types_teach_nothing() -> None:
    with pytest.raises(UserError, match=r"no training instance has one.*data.type_constraints = false"):
        TypeConstraints.learn([instance("", "", "a"), instance("A", "B", None)])
