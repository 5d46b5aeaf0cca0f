"""The nodes of a graph of triples: entities with equal names are one node, unless they have different types."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from retrograd.studies.extraction.triples import Triple

__all__ = ["Node", "find_nodes"]


@dataclass(frozen=True)
class Node:
    """An entity with what tells it apart from all others: its name or, where others have it, name and type."""

    id: str
    name: str
    kind: str


def find_nodes(triples: Sequence[Triple]) -> Mapping[tuple[str, str], Node]:
    """Return the node of every (name, type) of heads and tails, in order; an unknown type fits a single known one."""
    ends = dict.fromkeys(end for triple in triples for end in _ends(triple))
    kinds: dict[str, list[str]] = {}
    for name, kind in ends:
        kinds.setdefault(name, [])
        if kind:
            kinds[name].append(kind)
    taken = set(kinds)
    nodes: dict[tuple[str, str], Node] = {}
    for name, kind in ends:
        if len(kinds[name]) > 1 and kind:
            id_ = f"{name} ({kind})"
            while id_ in taken:  # an entity's own name may look so
                id_ += "'"
            taken.add(id_)
            nodes[name, kind] = Node(id_, name, kind)
        else:
            nodes[name, kind] = Node(name, name, kinds[name][0] if len(kinds[name]) == 1 else "")
    return nodes


def _ends(triple: Triple) -> Iterable[tuple[str, str]]:
    return (triple.head, triple.head_type), (triple.tail, triple.tail_type)
