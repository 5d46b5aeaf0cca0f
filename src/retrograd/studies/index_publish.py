"""Publish an index on disk to the engine that will search it: faiss in a folder, Milvus in a file or on a server."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from retrograd.index.disk.versions import has_versions
from retrograd.index.exact import ExactIndex
from retrograd.index.kinds import find_kind, holds_index, stored_kind
from retrograd.index.protocol import has_estimated_log_z
from retrograd.index.settings import IndexSettings
from retrograd.studies.index import index_folder
from retrograd.types import UserError
from retrograd.util.progress import bar

__all__ = ["PublishedIndex", "publish_index"]


@dataclass(frozen=True)
class PublishedIndex:
    """An index that was published: its rows, and the share of the exact top 10 that it finds."""

    passages: int
    recall: float


def publish_index(source: Path, settings: IndexSettings) -> PublishedIndex:
    """Publish the exact index in ``source`` as the next version at ``settings.path``; its vectors are read mapped.

    Readers see the version before until this one is whole. Raises `UserError` where ``source`` holds no exact index,
    for an engine or a place that nothing is published to, and as the engine does.
    """
    if settings.kind == "exact":
        raise UserError('--kind is "exact", which `retrograd index build` writes; give faiss or milvus')
    folder = index_folder(source)
    if "://" not in settings.path:
        _require_own_place(Path(settings.path).resolve(), folder.resolve())
    exact = ExactIndex.load(folder)
    with bar(f"publishing to {settings.kind}", len(exact), "passages") as advance:
        index = find_kind(settings.kind).publish(exact, settings, advance)
    assert has_estimated_log_z(index)
    return PublishedIndex(len(index), index.recall)


def _require_own_place(to: Path, folder: Path) -> None:
    """Raise `UserError` where publishing would remove versions of an exact index, or write into a run."""
    own = folder.parent if has_versions(folder.parent) else folder
    overlaps = own in (to, *to.parents) or to in own.parents
    holds = stored_kind(str(to)) if holds_index(str(to)) else ""
    if overlaps or holds == "exact" or (to / "experiment.toml").exists():
        raise UserError(
            f"--to is {to}, which holds an exact index, this one or another, or a run; give a place of its own"
        )
