"""The engines that an experiment may choose in ``index.kind``, each with what it makes of embeddings and of a folder.

A new engine is a file with an index, and an entry in `INDEXES`: an experiment names it, and the contract tests run over
that tuple.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.index.disk.storage import MANIFEST, read_sealed
from retrograd.index.disk.versions import has_versions, read_current
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.protocol import Index
from retrograd.index.settings import EngineName, IndexSettings
from retrograd.types import UserError
from retrograd.util.files import find_current_or_backup

__all__ = ["INDEXES", "IndexKind", "find_kind", "holds_index", "load_index", "stored_kind"]

BuildIndex = Callable[[ExactIndex, IndexSettings], Index]
LoadIndex = Callable[[Path, str | None, str | None, torch.device], Index]
SaveIndex = Callable[[Index, Path], None]


@dataclass(frozen=True)
class IndexKind:
    """An engine that searches.

    ===================  ===========================================================================================
    name                 ``index.kind`` of an experiment, and ``kind`` of a manifest
    build                makes an index of exact embeddings, as the settings ask; keeps fingerprints and rows
    load                 opens a folder or the current version of a root; fingerprints of base and encoder that are
                         given must be its own (`UserError`)
    save                 writes a folder, complete or not at all
    saves_with_model     a model's folder holds the index; otherwise it is made again of embeddings
    rows_move            single rows can be embedded anew in place; otherwise all are, and the index is built again
    ===================  ===========================================================================================
    """

    name: EngineName
    build: BuildIndex
    load: LoadIndex
    save: SaveIndex
    saves_with_model: bool
    rows_move: bool


def _load_exact(path: Path, base: str | None, encoder: str | None, device: torch.device) -> Index:
    return ExactIndex.load(path, base_fingerprint=base, encoder_fingerprint=encoder, device=device)


def _save_exact(index: Index, path: Path) -> None:
    assert isinstance(index, ExactIndex)
    index.save(path)


def _build_faiss(index: ExactIndex, settings: IndexSettings) -> Index:
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


def _load_faiss(path: Path, base: str | None, encoder: str | None, _device: torch.device) -> Index:
    return FaissIndex.load(path, base_fingerprint=base, encoder_fingerprint=encoder)


def _save_faiss(index: Index, path: Path) -> None:
    assert isinstance(index, FaissIndex)
    index.save(path)


INDEXES: tuple[IndexKind, ...] = (
    IndexKind("exact", lambda index, _: index, _load_exact, _save_exact, saves_with_model=True, rows_move=True),
    IndexKind("faiss", _build_faiss, _load_faiss, _save_faiss, saves_with_model=False, rows_move=False),
)
"""All engines; the first is the default."""


def find_kind(name: EngineName) -> IndexKind:
    """Return the engine of a name."""
    return next(kind for kind in INDEXES if kind.name == name)


def holds_index(path: Path) -> bool:
    """Return whether a folder is a finished index of any engine, or a root with a version of one."""
    return has_versions(path) or (find_current_or_backup(path) / MANIFEST).is_file()


def stored_kind(path: Path) -> str:
    """Return the kind of the index in a folder, or of the current version of a root.

    Raises `UserError` where there is no index.
    """
    return read_current(path, lambda folder: str(read_sealed(folder / MANIFEST).get("kind", "exact")))


def load_index(path: Path, settings: IndexSettings, base: str, encoder: str, device: torch.device) -> Index:
    """Open the index of a folder for the engine of ``settings``: its own, or one that it makes of exact embeddings.

    ``base`` and ``encoder`` are the fingerprints that the index must have. Exact embeddings on a CPU are mapped, not
    read. Raises `UserError` for an index of another base, encoder or engine, and for a damaged folder.
    """
    kind, stored = find_kind(settings.kind), stored_kind(path)
    if stored == kind.name:
        return kind.load(path, base, encoder, device)
    if stored != "exact":
        raise UserError(
            f'{path} holds a {stored!r} index, and index.kind is "{kind.name}"; set index.kind = "{stored}", or build '
            f"an exact one there: retrograd index build"
        )
    exact = ExactIndex.load(path, base_fingerprint=base, encoder_fingerprint=encoder)
    return kind.build(exact, settings)
