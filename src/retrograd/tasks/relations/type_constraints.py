"""The relations that a pair of entity types permits, learned from labelled instances.

SuRE (Lu et al. 2022, "Summarization as Indirect Supervision for Relation Extraction") scores a relation only for pairs
of types that stand in it in the training data. The rule, for the pair (head type, tail type) of a query:

1. the pair occurs in training: the relations seen with it;
2. otherwise: all relations seen with that head type or with that tail type;
3. neither type occurs, or the query has no types: all relations.

The task adds its negative label in every case. An empty type is an unknown one: nothing is learned of it, and a query
with one empty type falls under rule 2 by its other type. Types are compared as they are written.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrograd.data.relations.instance import RelationInstance
from retrograd.types import UserError
from retrograd.util.guards import JsonValue

__all__ = ["TypeConstraints"]

_KEYS = {"head_type", "tail_type", "relations"}


@dataclass(frozen=True)
class TypeConstraints:
    """The relations of each (head type, tail type) of the training data, in ``relations_by_types``."""

    relations_by_types: Mapping[tuple[str, str], frozenset[str]]

    @classmethod
    def learn(cls, instances: Iterable[RelationInstance]) -> TypeConstraints:
        """Learn from all instances with a relation and at least one type. Raises `UserError` where there is none."""
        relations_by_types: dict[tuple[str, str], set[str]] = {}
        for instance in instances:
            pair = (instance.head_type, instance.tail_type)
            if instance.relation is not None and any(pair):
                relations_by_types.setdefault(pair, set()).add(instance.relation)
        if not relations_by_types:
            raise UserError(
                "type constraints need entity types, and no training instance has one; "
                "give head_type and tail_type in the data, or set data.type_constraints = false"
            )
        return cls({pair: frozenset(relations) for pair, relations in relations_by_types.items()})

    def permitted_relations(self, head_type: str, tail_type: str) -> frozenset[str] | None:
        """Return the relations that the rule above permits; None permits all."""
        pair = (head_type, tail_type)
        if all(pair) and pair in self.relations_by_types:
            return self.relations_by_types[pair]
        related = [
            relations
            for (head, tail), relations in self.relations_by_types.items()
            if (head_type and head == head_type) or (tail_type and tail == tail_type)
        ]
        return frozenset[str]().union(*related) if related else None

    def to_record(self) -> list[JsonValue]:
        """Return the plain list from which `from_record` makes an equal value."""
        return [
            {"head_type": head, "tail_type": tail, "relations": [*sorted(relations)]}
            for (head, tail), relations in sorted(self.relations_by_types.items())
        ]

    @classmethod
    def from_record(cls, record: object, where: str) -> TypeConstraints:
        """Return the value of a record that `to_record` wrote; raise `UserError`, beginning with ``where``, for any
        other.
        """
        relations_by_types: dict[tuple[str, str], frozenset[str]] = {}
        for number, entry in enumerate(record if isinstance(record, Sequence) else [record], start=1):
            if not isinstance(entry, Mapping) or set(entry) != _KEYS or not isinstance(entry["relations"], list):
                raise UserError(f"{where}, entry {number}: expected head_type, tail_type and a list of relations")
            pair = (str(entry["head_type"]), str(entry["tail_type"]))
            relations_by_types[pair] = frozenset(str(relation) for relation in entry["relations"])
        return cls(relations_by_types)
