"""Where the indexes of a model come from: given, from the cache, or embedded.

A given index (``index.path``) is opened and checked, and only read. Where training moves passages, each later index is
a version in a folder of the run's own (`retrograd.index.disk.versions`), where the first one was given, else in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.disk.build import IndexSpec, ReportProgress, build_version
from retrograd.index.disk.cache import VectorCache
from retrograd.index.exact import ExactIndex
from retrograd.index.kinds import IndexKind, find_kind, holds_index, load_index, say_how_to_write
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.protocol import Index
from retrograd.index.settings import IndexSettings
from retrograd.rag.embedding import (
    build_index,
    build_shards,
    cache_spec,
    embed_block_rows,
    passage_fingerprint,
    shard_index,
)
from retrograd.rag.passage_side import PassageSide
from retrograd.tasks.task import Task
from retrograd.types import UserError

__all__ = ["IndexSource", "Passages"]

_LOOKED_AT = 1_024


@dataclass(frozen=True)
class Passages:
    """The passages that an index is made of: their base, the task that words them, and the towers that embed them.

    With ``is_spread`` each of several ranks holds a part of the rows.
    """

    side: PassageSide
    task: Task
    base: KnowledgeBase
    is_spread: bool = False

    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder of an index that is built now. Hashes the towers."""
        return passage_fingerprint(self.side, self.task, self.base)


@dataclass(frozen=True)
class IndexSource:
    """The settings of a model's index, and the folder of its run for later versions of a given one (None: memory)."""

    settings: IndexSettings = field(default_factory=IndexSettings)
    folder: Path | None = None

    @property
    def kind(self) -> IndexKind:
        """Return the engine that searches."""
        return find_kind(self.settings.kind)

    @property
    def is_given(self) -> bool:
        """Return whether the first index is one on disk, which is opened again and never copied."""
        return bool(self.settings.path)

    @property
    def copies_index(self) -> bool:
        """Return whether a model's folder holds a copy of the index as it was at first."""
        return not self.is_given and self.kind.saves_with_model

    def build_first(self, passages: Passages, progress: ReportProgress | None = None) -> Index:
        """Return the index to begin with: the given one, else one of embeddings from the cache or of new ones.

        Raises `UserError` for a given index that is damaged, or not one of these passages by this tower.
        """
        if passages.is_spread and self.kind.name != "exact":
            raise UserError(
                f'index.kind is "{self.kind.name}", which one process alone searches, and there are several; set '
                f'index.kind = "exact", or train in one process'
            )
        if self.is_given:
            return self._open_given(passages)
        return self._embed(passages, self.settings.dtype, progress, self._cache())

    def build_next(self, passages: Passages, dtype: torch.dtype, progress: ReportProgress | None = None) -> Index:
        """Return an index of the passages as they are embedded now, in the place of an older one stored in ``dtype``.

        Embeddings of a tower that training moves are not kept in the cache: no later run will have them.
        """
        if self.is_given and self.folder is not None and not passages.is_spread:
            return self.kind.build(self._write_version(self.folder, passages, dtype, progress), self.settings)
        return self._embed(passages, dtype, progress, None if passages.side.moves else self._cache())

    def is_embedded_before(self, passages: Passages) -> bool:
        """Return whether `build_first` would embed nothing. Words and hashes all passages."""
        if self.is_given:
            return True
        cache = self._cache()
        rows = range(len(passages.base))
        return cache is not None and cache.holds(
            cache_spec(passages.side, passages.task, passages.base, rows, self.settings.dtype)
        )

    def _cache(self) -> VectorCache | None:
        return VectorCache.of_user() if self.settings.cache else None

    def _embed(
        self, passages: Passages, dtype: torch.dtype, progress: ReportProgress | None, cache: VectorCache | None
    ) -> Index:
        side, task, base = passages.side, passages.task, passages.base
        if passages.is_spread:
            return build_shards(side, task, base, dtype, progress, cache)
        return self.kind.build(build_index(side, task, base, dtype, progress, cache), self.settings)

    def _open_given(self, passages: Passages) -> Index:
        path, device = self.settings.path, passages.side.device
        if not holds_index(path):
            raise UserError(
                f"index.path: {path} holds no finished index; write it with `{say_how_to_write(path)}`, or set "
                f'index.path = "" to have the base embedded'
            )
        try:
            encoder = passages.encoder_fingerprint()
            where = torch.device("cpu") if passages.is_spread else device
            index = load_index(self.settings, passages.base.fingerprint, encoder, where)
            _require_whole(index, path, len(passages.base))
        except UserError as error:
            own = passages.side.own_posterior is not None
            width = "; the posterior's own passage embeddings are a part of each row here" if own else ""
            raise UserError(f'index.path: {error}, or set index.path = "" to have the base embedded{width}') from None
        if not passages.is_spread:
            return index
        assert isinstance(index, ExactIndex)
        return shard_index(index, device)

    def _write_version(
        self, folder: Path, passages: Passages, dtype: torch.dtype, progress: ReportProgress | None
    ) -> ExactIndex:
        """Embed the base into the next version under ``folder``, and map it."""
        side, base = passages.side, passages.base
        spec = IndexSpec(
            base_fingerprint=base.fingerprint,
            encoder_fingerprint=passages.encoder_fingerprint(),
            encoding="by the passage tower of a run in training",
            rows=len(base),
            dimension=side.dimension,
            dtype=dtype,
        )

        def encode(first: int, stop: int) -> Iterator[Float[Tensor, "n D"]]:
            return embed_block_rows(side, passages.task, base, range(first, stop))

        build_version(folder, spec, encode, progress)
        return ExactIndex.load(folder, encoder_fingerprint=spec.encoder_fingerprint, device=side.device)


def _require_whole(index: Index, path: str, rows: int) -> None:
    """Raise `UserError` unless all rows are there, none of 1,024 at equal distances being zero."""
    if len(index) != rows:
        raise UserError(f"{path} holds {len(index):,} rows, and the base {rows:,} passages; build it again")
    if not index.keeps_embeddings:
        return
    looked_at = torch.arange(min(rows, _LOOKED_AT)) * rows // min(rows, _LOOKED_AT)
    is_zero = (index.vectors(looked_at) == 0).all(dim=1)
    if bool(is_zero.any()):
        row = int(looked_at[is_zero.nonzero()[0]])
        raise UserError(
            f"{path}: the vector of row {row} is zero, which no passage is embedded as; build it again (`retrograd "
            f"index check` reads all rows)"
        )
