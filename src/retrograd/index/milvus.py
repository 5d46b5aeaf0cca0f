"""An approximate index in Milvus, for a base that outgrows a process: in a local file, on a server, on a cluster.

`retrograd.index.milvus_store` holds its versions, and switches readers from one to the next.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.approximate import count_lists, count_requested, drop_rows, measure_recall
from retrograd.index.disk.storage import Manifest, require_same
from retrograd.index.exact import ExactIndex
from retrograd.index.milvus_store import MOST_RESULTS, MilvusStore, stop_serving
from retrograd.index.protocol import LogNormaliser, Neighbours, require_rows
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["MilvusIndex", "MilvusPreset"]

_INSERTED_BYTES = 2**24
_SEGMENT_ROWS = 100_000
"""Rows of a segment, which has an index of its own: at most this in milvus-lite; a server chooses by bytes."""


@dataclass(frozen=True)
class MilvusPreset:
    """An index of Milvus, with how it is built and how hard it searches: ``probe`` lists (IVF) or ``ef`` (HNSW)."""

    index_type: str
    build: dict[str, int]
    probe: int = 0

    def search_parameters(self, results: int) -> dict[str, int]:
        """Return the parameters of a search for so many results."""
        if self.index_type == "HNSW":
            return {"ef": max(self.probe, results)}
        return {"nprobe": self.probe} if self.probe else {}


class MilvusIndex:
    """Embeddings [N D] in one collection of Milvus, searched by inner product.

    Made by `publish`, `open`, or `build` (a local file that goes with the index). ``recall`` is the share of the exact
    top 10 that the top 10 held when it was published; ``embeddings`` are those it was made of, where they are at hand:
    vectors are then read there, and not asked of Milvus.
    """

    log_z: LogNormaliser = "estimated"
    samples_exactly = False
    moves_rows = False
    keeps_embeddings = True
    is_spread = False
    saves_with_model = False  # a model's folder holds an exact index

    def __init__(
        self, store: MilvusStore, collection: str, manifest: Manifest, embeddings: ExactIndex | None = None
    ) -> None:
        """Keep an opened collection; use `publish`, `open` or `build`."""
        self._store = store
        self._manifest = manifest
        self._embeddings = embeddings
        self._preset = MilvusPreset(manifest.factory or "FLAT", {}, manifest.probe or 0)
        self.collection = collection
        self.recall = manifest.recall or 0.0

    @staticmethod
    def preset(name: str, rows: int, probe: int = 0) -> MilvusPreset:
        """Return an index of Milvus to begin with, by the names of `FaissIndex.preset`: "flat", "ivf", "ivf-sq8",
        "hnsw"; ``probe`` other than 0 takes the place of its own.

        Milvus builds one for each segment of rows, so the number of lists is that of a segment. (milvus-lite 3.2 reads
        none of this and takes 128 lists, or M = 16; ``probe`` it reads.) Raises `UserError` for another name.
        """
        lists, own_probe = count_lists(min(rows, _SEGMENT_ROWS))
        presets = {
            "flat": MilvusPreset("FLAT", {}),
            "ivf": MilvusPreset("IVF_FLAT", {"nlist": lists}, probe or own_probe),
            "ivf-sq8": MilvusPreset("IVF_SQ8", {"nlist": lists}, probe or own_probe),
            "hnsw": MilvusPreset("HNSW", {"M": 32, "efConstruction": 200}, probe or 128),
        }
        if name not in presets:
            raise UserError(f"Milvus has no preset {name!r}; {suggest_name(name, list(presets))}")
        return presets[name]

    @classmethod
    def publish(
        cls,
        exact: ExactIndex,
        address: str,
        name: str = "retrograd",
        preset: MilvusPreset | None = None,
        *,
        queries: Float[Tensor, "Q D"] | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> MilvusIndex:
        """Write exact embeddings into a new collection and switch the alias ``name`` to it; return the index.

        Rows are sent in blocks of 16 MiB, which ``progress`` counts; of mapped embeddings no more is read at once. The
        recall is measured with ``queries``, else with rows of the base, as by `FaissIndex`. Two versions stay. Killed
        at any moment, the version before stays the current one.

        Raises `UserError` without pymilvus, where Milvus cannot be reached or refuses, and for vectors wider than it
        stores.
        """
        preset = preset or cls.preset("ivf", len(exact))
        store = MilvusStore(address)
        collection = store.create(name, exact.dimension)
        store.insert(collection, _blocks(exact, progress))
        store.make_searchable(collection, preset.index_type, preset.build, len(exact))
        manifest = Manifest(
            kind="milvus",
            base_fingerprint=exact.base_fingerprint,
            encoder_fingerprint=exact.encoder_fingerprint,
            dtype="F32",
            rows=len(exact),
            dimension=exact.dimension,
            factory=preset.index_type,
            probe=preset.probe or None,
        )
        recall = measure_recall(cls(store, collection, manifest), exact, queries)
        manifest = replace(manifest, recall=recall)
        store.make_current(name, collection, manifest)
        return cls(store, collection, manifest, exact)

    @classmethod
    def build(cls, exact: ExactIndex, preset: MilvusPreset | None = None) -> MilvusIndex:
        """Return an index of exact embeddings in a local file of its own, which goes when the index does."""
        folder = Path(tempfile.mkdtemp(prefix="retrograd-milvus-"))
        try:
            index = cls.publish(exact, str(folder / "index.db"), preset=preset)
        except BaseException:
            _remove(folder)
            raise
        weakref.finalize(index, _remove, folder)
        return index

    @classmethod
    def open(
        cls,
        address: str,
        name: str = "retrograd",
        *,
        base_fingerprint: str | None = None,
        encoder_fingerprint: str | None = None,
        probe: int = 0,
    ) -> MilvusIndex:
        """Open the current version of an index; ``probe`` other than 0 takes the place of that of its preset, with
        which its recall was measured.

        Raises `UserError` where there is none, where Milvus cannot be reached, and if a fingerprint given is not its
        own.
        """
        if "://" not in address and not Path(address).exists():
            raise UserError(f"{address} does not exist; write it with: retrograd index publish INDEX --to {address}")
        store = MilvusStore(address)
        collection, manifest = store.open_current(name)
        where = f"{address}, {collection}"
        require_same(where, "knowledge base", manifest.base_fingerprint, base_fingerprint)
        require_same(where, "encoder", manifest.encoder_fingerprint, encoder_fingerprint)
        return cls(store, collection, replace(manifest, probe=probe or manifest.probe))

    def __len__(self) -> int:
        return self._manifest.rows

    @property
    def base_fingerprint(self) -> str:
        """Return the fingerprint of the knowledge base whose rows these are."""
        return self._manifest.base_fingerprint

    @property
    def encoder_fingerprint(self) -> str:
        """Return the fingerprint of the encoder that embedded the rows."""
        return self._manifest.encoder_fingerprint

    @property
    def dimension(self) -> int:
        """Return D, the width of an embedding."""
        return self._manifest.dimension

    @property
    def held_rows(self) -> range:
        """Return all rows of the base."""
        return range(len(self))

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return approximately the k best rows per query, never one of ``exclude``; padded (-1, ``-inf``) where Milvus
        found fewer.

        Takes k + E from Milvus and drops the excluded ones: one request serves queries that exclude different rows,
        which one filter cannot. Logits are fp32; ``log_normaliser`` is None. Raises as `ExactIndex.search` does, and
        `UserError` for more results than Milvus returns.
        """
        return self._search(query, k, exclude, None)

    def search_among(
        self, rows: Int[Tensor, " n"], query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None
    ) -> Neighbours:
        """Return approximately the k best of ``rows``, which Milvus filters as it searches; otherwise as `search`."""
        return self._search(query, k, exclude, rows)

    def _search(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None,
        rows: Int[Tensor, " n"] | None,
    ) -> Neighbours:
        requested = count_requested(query, k, exclude, len(self), self.dimension)
        if requested > MOST_RESULTS:
            excluded = 0 if exclude is None else exclude.shape[1]
            raise UserError(
                f"{k:,} passages are asked for and {excluded:,} excluded; Milvus returns at most {MOST_RESULTS:,}: "
                f"ask for fewer"
            )
        parameters = self._preset.search_parameters(requested)
        row, logit = self._store.search(self.collection, query, requested, parameters, rows)
        return drop_rows(row.to(query.device), logit.to(query.device), exclude, k)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the stored embeddings, fp32; row -1 gives zeros. Each distinct row is asked of Milvus once.

        Raises `ValueError` for a row that does not exist.
        """
        require_rows(row, len(self))
        if self._embeddings is not None:
            return self._embeddings.vectors(row)
        distinct, position = row.reshape(-1).cpu().unique(return_inverse=True)
        is_row = distinct >= 0
        stored = torch.zeros(len(distinct), self.dimension)
        stored[is_row] = self._store.fetch(self.collection, distinct[is_row], self.dimension)
        return stored[position].view(*row.shape, self.dimension).to(row.device)


def _blocks(
    exact: ExactIndex, progress: Callable[[int], None] | None
) -> Iterator[tuple[Int[Tensor, " n"], Float[Tensor, "n D"]]]:
    for rows in torch.arange(len(exact)).split(max(1, _INSERTED_BYTES // (4 * exact.dimension))):
        yield rows, exact.vectors(rows)
        if progress is not None:
            progress(len(rows))


def _remove(folder: Path) -> None:
    stop_serving(str(folder / "index.db"))
    shutil.rmtree(folder, ignore_errors=True)
