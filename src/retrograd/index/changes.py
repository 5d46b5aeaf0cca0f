"""Passages that come and go: a changed base, and which of its rows an older index holds already.

The changed base is kept beside the versions of the index, in ``bases/``, by its fingerprint: the source that the index
was built from has only the base of its beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrograd.index.disk.storage import parse_manifest
from retrograd.index.disk.versions import versions
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.types import Passage, UserError

__all__ = ["ChangedBase", "add_passages", "keep_base", "open_kept_base", "remove_passages", "update_passages"]

_BASES = "bases"


@dataclass(frozen=True)
class ChangedBase:
    """A base after a change. ``old_row`` has, for each of its rows, the row before, or -1 where the text is new."""

    base: KnowledgeBase
    old_row: Sequence[int]

    @property
    def new_rows(self) -> int:
        """Return how many rows no older index holds."""
        return sum(row < 0 for row in self.old_row)


def add_passages(base: KnowledgeBase, added: Sequence[Passage], where: str) -> ChangedBase:
    """Return the base with passages behind those that there are.

    Raises `UserError`, with ``where`` they are from, for an id that is there already, and for none.
    """
    _require_some(added, where)
    rows = _rows_by_id(base)
    known = next((passage.id for passage in added if passage.id in rows), None)
    if known is not None:
        raise UserError(f"{where}: the id {known!r} is in the base already; change it with: retrograd index update")
    changed = KnowledgeBase.from_passages(_joined(base, added))
    return ChangedBase(changed, [*range(len(base)), *[-1] * len(added)])


def update_passages(base: KnowledgeBase, updated: Sequence[Passage], where: str) -> ChangedBase:
    """Return the base with other texts in the rows of the ids of ``updated``; what is equal already is not new.

    Raises `UserError`, with ``where`` they are from, for an id that is not there, and for none.
    """
    _require_some(updated, where)
    rows = _rows_by_id(base)
    unknown = next((passage.id for passage in updated if passage.id not in rows), None)
    if unknown is not None:
        raise UserError(f"{where}: no passage of the base has the id {unknown!r}; add it with: retrograd index add")
    changes = {rows[passage.id]: passage for passage in updated}
    passages = (changes.get(row, passage) for row, passage in enumerate(base))
    old_row = [-1 if row in changes and changes[row] != passage else row for row, passage in enumerate(base)]
    return ChangedBase(KnowledgeBase.from_passages(passages), old_row)


def remove_passages(base: KnowledgeBase, ids: Iterable[str], where: str) -> ChangedBase:
    """Return the base without the passages of some ids; the rows behind them move up.

    Raises `UserError`, with ``where`` they are from, for an id that is not there, for none, and for all of them.
    """
    removed = set(ids)
    _require_some(sorted(removed), where)
    unknown = min(removed - _rows_by_id(base).keys(), default=None)
    if unknown is not None:
        raise UserError(f"{where}: no passage of the base has the id {unknown!r}")
    old_row = [row for row, passage in enumerate(base) if passage.id not in removed]
    if not old_row:
        raise UserError(f"{where}: these are all {len(base):,} passages, and an index needs at least one")
    kept = (passage for passage in base if passage.id not in removed)
    return ChangedBase(KnowledgeBase.from_passages(kept), old_row)


def keep_base(root: Path, base: KnowledgeBase) -> None:
    """Write a changed base beside the versions of an index, and remove those of versions that are gone."""
    file = _file(root, base.fingerprint)
    if not file.exists():
        base.save(file)
    used = {_file(root, parse_manifest(version).base_fingerprint) for version in versions(root)} | {file}
    for other in file.parent.glob("*.arrow"):
        if other not in used:
            other.unlink()


def open_kept_base(root: Path, base_fingerprint: str) -> KnowledgeBase | None:
    """Return the base that is kept beside the versions of an index; None where it is that of the index's source."""
    file = _file(root, base_fingerprint)
    return KnowledgeBase.open(file) if file.exists() else None


def _file(root: Path, base_fingerprint: str) -> Path:
    return root / _BASES / f"{base_fingerprint[:32]}.arrow"


def _rows_by_id(base: KnowledgeBase) -> dict[str, int]:
    return {passage.id: row for row, passage in enumerate(base)}


def _joined(base: KnowledgeBase, added: Sequence[Passage]) -> Iterator[Passage]:
    yield from base
    yield from added


def _require_some(items: Sequence[object], where: str) -> None:
    if not items:
        raise UserError(f"{where}: there is nothing in it, so the index stays as it is")
