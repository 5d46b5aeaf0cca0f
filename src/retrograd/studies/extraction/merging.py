"""Merge the mentions of one entity, and the triples that are equal then.

Names are compared as lists of words: case is folded, and white space and punctuation do not count (but for ``#``,
``&``, ``%``, ``@`` and ``*``, and for what is no punctuation, such as ``+``). Within a document two mentions of the
same type are one entity

1. where their words are equal: "Pelham Press" and "PELHAM  PRESS";
2. where the words of the one are a part, in a row, of those of the other, and of no second entity of this type that is
   longer: "Lovelace" is "Ada Lovelace" unless the document has "King Lovelace", too. Where there is "Lovelace", "Ada
   Lovelace" and "Lady Ada Lovelace", only the longest counts as another entity.

The entity is called by its longest name, as it is written most often. Across documents only rule 1 holds. What is equal
in name and different in type is not one entity. Pronouns are not resolved.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from retrograd.metrics.words import words_and_signs
from retrograd.studies.extraction.triples import Triple
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["MERGES", "EntityNames", "Merge", "Name", "join_documents", "known_merge", "merge_triples", "name_words"]

Merge = Literal["none", "document", "all"]
"""Whose mentions are merged: nobody's, those of a document, or those of all documents."""

MERGES: tuple[Merge, ...] = get_args(Merge)

Name = tuple[str, str]
"""A mention's name as written, with single spaces, and its type."""

_KEPT_SIGNS = "#&%@*"


def known_merge(value: str) -> Merge:
    """Return one of `MERGES`. Raises `UserError` for anything else."""
    for known in MERGES:
        if value == known:
            return known
    raise UserError(f"unknown way to merge {value!r}; {suggest_name(value, MERGES)}")


def name_words(name: str) -> tuple[str, ...]:
    """Return the words by which names are compared; the name itself, folded, where it has nothing but punctuation."""
    tokens = words_and_signs(name.casefold())
    kept = tuple(token for token in tokens if token in _KEPT_SIGNS or unicodedata.category(token[0])[0] != "P")
    return kept or (name.casefold(),)


@dataclass(frozen=True)
class EntityNames:
    """The entities of a document: for each name that it has, with its type, the name of the entity."""

    names: Mapping[Name, str]

    @classmethod
    def of(cls, mentions: Iterable[Name]) -> EntityNames:
        """Return the entities of all mentions of one document, in the order of the text."""
        counts = Counter(mentions)
        by_type: dict[str, dict[tuple[str, ...], list[str]]] = {}
        for name, kind in counts:
            by_type.setdefault(kind, {}).setdefault(name_words(name), []).append(name)
        names: dict[Name, str] = {}
        for kind, written in by_type.items():
            wholes = _find_wholes(list(written))
            for own_words, own in written.items():
                whole = written[wholes[own_words]]
                best = max(whole, key=lambda name: counts[name, kind])  # the first of equally frequent ones
                names |= {(name, kind): best for name in own}
        return cls(names)

    def of_entity(self, name: str, kind: str) -> str:
        """Return the name of the entity that a mention is of; a name that is not in the document is its own."""
        return self.names.get((name, kind), name)

    def are_one(self, first: Name, second: Name) -> bool:
        """Return whether two mentions are of one entity."""
        return first[1] == second[1] and self.of_entity(*first) == self.of_entity(*second)


def _find_wholes(names: Sequence[tuple[str, ...]]) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Return for each name, as words, the one that it is a part of, if that is a part of none and the only such one."""
    containing: dict[tuple[str, ...], set[tuple[str, ...]]] = {name: set() for name in names}
    known = set(names)
    lengths = {len(name) for name in names}
    for longer in names:
        for length in (one for one in lengths if one < len(longer)):
            for start in range(len(longer) - length + 1):
                part = longer[start : start + length]
                if part in known:
                    containing[part].add(longer)
    wholes = {}
    for name, longer_names in containing.items():
        longest = [longer for longer in longer_names if not containing[longer]]
        wholes[name] = longest[0] if len(longest) == 1 else name
    return wholes


def join_documents(documents: Mapping[str, EntityNames]) -> dict[str, EntityNames]:
    """Return the entities of every document, by its key, so that equal ones have one name: that of most documents."""
    written: dict[tuple[tuple[str, ...], str], Counter[str]] = {}
    for own in documents.values():
        for name, kind in {(name, kind): None for (_, kind), name in own.names.items()}:
            written.setdefault((name_words(name), kind), Counter())[name] += 1
    best = {key: counts.most_common(1)[0][0] for key, counts in written.items()}
    return {
        key: EntityNames({(name, kind): best[name_words(whole), kind] for (name, kind), whole in own.names.items()})
        for key, own in documents.items()
    }


def merge_triples(
    triples: Sequence[tuple[str, Triple]], documents: Mapping[str, EntityNames], merge: Merge
) -> list[Triple]:
    """Return the triples, each with the key of its document, under the names of their entities.

    Equal ones, in a document or in all, become one: the best-scored, with the sources of all, the best first. A triple
    of two mentions that are one entity keeps their names as written.
    """
    if merge == "none":
        return [triple for _, triple in triples]
    found: dict[tuple[str, ...], list[Triple]] = {}
    for key, triple in triples:
        named = _rename(triple, documents[key])
        document = key if merge == "document" else ""
        ends = (named.head, named.head_type, named.tail, named.tail_type)
        found.setdefault((document, named.relation, *ends), []).append(named)
    return [_join(same) for same in found.values()]


def _rename(triple: Triple, entities: EntityNames) -> Triple:
    if entities.are_one((triple.head, triple.head_type), (triple.tail, triple.tail_type)):
        return triple
    head = entities.of_entity(triple.head, triple.head_type)
    return replace(triple, head=head, tail=entities.of_entity(triple.tail, triple.tail_type))


def _join(triples: Sequence[Triple]) -> Triple:
    ordered = sorted(triples, key=lambda triple: -triple.score)
    sources = tuple(source for triple in ordered for source in triple.sources)
    return replace(ordered[0], sources=sources)
