"""The engines that an experiment may choose in ``index.kind``, each with what it makes of embeddings and of a folder.

A new engine is a file with an index, and an entry in `INDEXES`: an experiment names it, and the contract tests run over
that tuple. Settings are checked by what an engine can do, so its functions import it when they are called.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from retrograd.deferred import torch
from retrograd.index.settings import EngineName, IndexSettings, is_milvus_place
from retrograd.types import UserError
from retrograd.util.files import find_current_or_backup

if TYPE_CHECKING:
    from retrograd.index.exact import ExactIndex
    from retrograd.index.faiss import FaissIndex
    from retrograd.index.milvus import MilvusPreset
    from retrograd.index.protocol import Index

__all__ = [
    "INDEXES",
    "IndexKind",
    "current_name",
    "find_kind",
    "holds_index",
    "load_index",
    "require_engine",
    "say_how_to_write",
    "stored_kind",
]

BuildIndex: TypeAlias = "Callable[[ExactIndex, IndexSettings], Index]"
OpenIndex: TypeAlias = "Callable[[IndexSettings, str | None, str | None, torch.device], Index]"
PublishIndex: TypeAlias = "Callable[[ExactIndex, IndexSettings, Callable[[int], None] | None], Index]"


@dataclass(frozen=True)
class IndexKind:
    """An engine that searches.

    ===================  ===========================================================================================
    name                 ``index.kind`` of an experiment, and ``kind`` of a manifest
    build                makes an index of exact embeddings, as the settings ask; keeps fingerprints and rows
    open                 opens what is published at ``index.path``; fingerprints of base and encoder that are given
                         must be its own (`UserError`)
    publish              makes an index of exact embeddings at ``index.path``, as a new version there: readers see the
                         version before or this one, whole; progress gets the rows that are sent, where it takes long
    saves_with_model     a model's folder holds the index; otherwise it is made again of embeddings
    rows_move            single rows can be embedded anew in place; otherwise all are, and the index is built again
    ===================  ===========================================================================================
    """

    name: EngineName
    build: BuildIndex
    open: OpenIndex
    publish: PublishIndex
    saves_with_model: bool
    rows_move: bool


def _open_exact(settings: IndexSettings, base: str | None, encoder: str | None, device: torch.device) -> Index:
    from retrograd.index.exact import ExactIndex

    path = Path(settings.path)
    return ExactIndex.load(path, base_fingerprint=base, encoder_fingerprint=encoder, device=device)


def _publish_exact(index: ExactIndex, settings: IndexSettings, _progress: Callable[[int], None] | None = None) -> Index:
    from retrograd.index.disk.versions import write_version
    from retrograd.index.exact import ExactIndex

    folder = write_version(Path(settings.path), index.save)
    return ExactIndex.load(folder)


def _build_faiss(index: ExactIndex, settings: IndexSettings) -> FaissIndex:
    from retrograd.index.faiss import FaissIndex

    preset = FaissIndex.preset(settings.preset, len(index), index.dimension)
    is_own = bool(settings.factory)
    return FaissIndex(
        index.vectors(torch.arange(len(index))),
        settings.factory or preset.factory,
        probe=settings.probe or (None if is_own else preset.probe),
        rerank=settings.rerank or (None if is_own else preset.rerank),
        base_fingerprint=index.base_fingerprint,
        encoder_fingerprint=index.encoder_fingerprint,
    )


def _open_faiss(settings: IndexSettings, base: str | None, encoder: str | None, _device: torch.device) -> Index:
    from retrograd.index.faiss import FaissIndex

    return FaissIndex.load(Path(settings.path), base_fingerprint=base, encoder_fingerprint=encoder)


def _publish_faiss(index: ExactIndex, settings: IndexSettings, _progress: Callable[[int], None] | None = None) -> Index:
    from retrograd.index.disk.versions import write_version

    made = _build_faiss(index, settings)
    write_version(Path(settings.path), made.save)
    return made


def _build_milvus(index: ExactIndex, settings: IndexSettings) -> Index:
    from retrograd.index.milvus import MilvusIndex

    return MilvusIndex.build(index, _milvus_preset(index, settings))


def _open_milvus(settings: IndexSettings, base: str | None, encoder: str | None, _device: torch.device) -> Index:
    from retrograd.index.milvus import MilvusIndex

    return MilvusIndex.open(
        settings.path, settings.collection, base_fingerprint=base, encoder_fingerprint=encoder, probe=settings.probe
    )


def _publish_milvus(index: ExactIndex, settings: IndexSettings, progress: Callable[[int], None] | None = None) -> Index:
    from retrograd.index.milvus import MilvusIndex

    preset = _milvus_preset(index, settings)
    return MilvusIndex.publish(index, settings.path, settings.collection, preset, progress=progress)


def _milvus_preset(index: ExactIndex, settings: IndexSettings) -> MilvusPreset:
    from retrograd.index.milvus import MilvusIndex

    return MilvusIndex.preset(settings.preset, len(index), settings.probe)


INDEXES: tuple[IndexKind, ...] = (
    IndexKind("exact", lambda index, _: index, _open_exact, _publish_exact, saves_with_model=True, rows_move=True),
    IndexKind("faiss", _build_faiss, _open_faiss, _publish_faiss, saves_with_model=False, rows_move=False),
    IndexKind("milvus", _build_milvus, _open_milvus, _publish_milvus, saves_with_model=False, rows_move=False),
)
"""All engines; the first is the default."""


def find_kind(name: EngineName) -> IndexKind:
    """Return the engine of a name."""
    return next(kind for kind in INDEXES if kind.name == name)


def holds_index(where: str) -> bool:
    """Return whether this is a finished index of any engine, or a root with a version of one.

    Of a server nothing is known until the index is opened, so its address counts as one.
    """
    from retrograd.index.disk.storage import MANIFEST
    from retrograd.index.disk.versions import has_versions

    if is_milvus_place(where):
        return "://" in where or Path(where).exists()
    return has_versions(Path(where)) or (find_current_or_backup(Path(where)) / MANIFEST).is_file()


def stored_kind(where: str) -> str:
    """Return the kind of the index in a folder, of the current version of a root, or of what Milvus serves.

    Raises `UserError` where there is no index.
    """
    from retrograd.index.disk.storage import MANIFEST, read_sealed
    from retrograd.index.disk.versions import read_current

    if is_milvus_place(where):
        return "milvus"
    return read_current(Path(where), lambda folder: str(read_sealed(folder / MANIFEST).get("kind", "exact")))


def current_name(settings: IndexSettings) -> str:
    """Return the name of the version that a reader of ``index.path`` opens now; "" where there are no versions.

    Raises `UserError` where the pointer is damaged, and where Milvus cannot be reached.
    """
    from retrograd.index.disk.versions import current_version, has_versions

    if is_milvus_place(settings.path):
        from retrograd.index.milvus_store import MilvusStore

        return MilvusStore(settings.path).current_name(settings.collection)
    root = Path(settings.path)
    return current_version(root).name if has_versions(root) else ""


def require_engine(settings: IndexSettings, stored: str) -> None:
    """Raise `UserError` unless the engine of ``settings`` opens an index of the ``stored`` kind, or makes one of it."""
    if stored not in ("exact", settings.kind):
        raise UserError(
            f'{settings.path} holds a {stored!r} index, and index.kind is "{settings.kind}"; set index.kind = '
            f'"{stored}", or build an exact one there: retrograd index build'
        )


def say_how_to_write(where: str) -> str:
    """Return the command that writes an index to a place where there is none."""
    if is_milvus_place(where):
        return f"retrograd index publish INDEX --to {where}"
    return f"retrograd index build EXPERIMENT --out {where}"


def load_index(settings: IndexSettings, base: str, encoder: str, device: torch.device) -> Index:
    """Open the index at ``index.path`` for the engine of ``settings``: its own, or one that it makes of exact
    embeddings.

    ``base`` and ``encoder`` are the fingerprints that the index must have. Exact embeddings on a CPU are mapped, not
    read. Raises `UserError` for an index of another base, encoder or engine, and for a damaged folder.
    """
    from retrograd.index.exact import ExactIndex

    kind, stored = find_kind(settings.kind), stored_kind(settings.path)
    if stored == kind.name:
        return kind.open(settings, base, encoder, device)
    require_engine(settings, stored)
    exact = ExactIndex.load(Path(settings.path), base_fingerprint=base, encoder_fingerprint=encoder)
    return kind.build(exact, settings)
