"""An approximate index by faiss, faster than exact search. Only this file imports faiss.

An approximate index finds most of the top K and nothing of the rest, so that log Z over the base is estimated, from the
best rows and from rows drawn uniformly (`retrograd.index.estimated`). What it misses of the top K is measured when it
is built: `FaissIndex.recall`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.approximate import count_lists, count_requested, drop_rows, measure_recall
from retrograd.index.disk.storage import (
    MANIFEST,
    Manifest,
    index_directory,
    read_manifest,
    require_rows_to_store,
    write_manifest,
)
from retrograd.index.disk.versions import read_current
from retrograd.index.exact import ExactIndex
from retrograd.index.protocol import LogNormaliser, Neighbours, require_rows
from retrograd.types import UserError
from retrograd.util.files import atomic_file
from retrograd.util.guards import suggest_name
from retrograd.util.optional import require_package

if TYPE_CHECKING:
    import faiss

__all__ = ["FaissIndex", "FaissPreset", "import_faiss"]

_FILE = "index.faiss"
_BLOCK_ROWS = 65_536
# Loaded again, faiss 1.15 crashes when asked for a vector of the first kind, and decodes the second wrongly.
_FAST_SCAN = re.compile(r"x4fs|RaBitQ")
_TRAINING_ROWS, _TRAINING_ROWS_A_LIST = 100_000, 64


@dataclass(frozen=True)
class FaissPreset:
    """Arguments of `FaissIndex` that go together, returned by `FaissIndex.preset`."""

    factory: str
    probe: int | None = None
    rerank: int | None = None


@dataclass(frozen=True)
class _Stored:
    """An index that faiss has already built, with its recall."""

    index: faiss.Index
    recall: float


class FaissIndex:
    """Embeddings [N D] in any structure that `faiss.index_factory` makes, searched by inner product.

    ``factory`` is faiss's own description: "Flat", "IVF1024,Flat", "HNSW32", "IVF1024,SQ8"… ``probe`` is how hard it
    searches: lists visited (IVF; faiss's default 1 is too few) or efSearch (HNSW); None keeps faiss's default.
    ``rerank`` is for factories that end in "RFlat": that many times k rows are found by compressed vectors and put in
    order by exact ones, which are kept beside them (faiss's default 1 puts in order, but finds no more).

    ``recall`` is the share of the exact top 10 that the top 10 holds, for ``queries``, else for 256 rows of the base
    taken at equal distances (which find themselves, so it flatters by up to 0.1: give queries of your task).

    Raises `UserError` without faiss, for no vectors, for some that `ExactIndex` refuses and for a factory that faiss
    refuses.
    """

    log_z: LogNormaliser = "estimated"
    samples_exactly = False
    moves_rows = False
    keeps_embeddings = False  # those of a factory that compresses are decoded
    is_spread = False
    saves_with_model = False  # a model's folder holds an exact index

    def __init__(
        self,
        vectors: Float[Tensor, "N D"] | _Stored,
        factory: str = "Flat",
        *,
        base_fingerprint: str,
        encoder_fingerprint: str,
        probe: int | None = None,
        rerank: int | None = None,
        queries: Float[Tensor, "Q D"] | None = None,
    ) -> None:
        self.factory = factory
        self.probe = probe
        self.base_fingerprint = base_fingerprint
        self.encoder_fingerprint = encoder_fingerprint
        if isinstance(vectors, _Stored):
            self._index, self.recall = vectors.index, vectors.recall
            _set_probe(self._index, factory, probe)
            return
        require_rows_to_store(len(vectors))
        exact = ExactIndex(
            vectors.cpu(),
            base_fingerprint=base_fingerprint,
            encoder_fingerprint=encoder_fingerprint,
            dtype=torch.float32,
        )
        self._index = _build_index(vectors, factory)
        _set_probe(self._index, factory, probe)
        _set_rerank(self._index, factory, rerank)
        self.recall = measure_recall(self, exact, queries)

    @staticmethod
    def preset(name: str, rows: int, width: int) -> FaissPreset:
        """Return settings to begin with, for a base of ``rows`` x ``width``; then read `recall` and turn ``probe``.

        ==========  ====================  ==================================================================
        name        bytes a row           reason to take it
        ==========  ====================  ==================================================================
        "flat"      4 D                   exact; the yardstick. `ExactIndex` is faster and knows log Z
        "ivf"       4 D + 8               quick to build and to add to; visits 1/16 of the lists
        "ivf-sq8"   D + 8                 the same in a quarter of the memory: one byte a number
        "ivf-pq"    4.125 D + 8           fastest scan: 4 bits for 4 numbers, 10 k of them put in order by
                                          the exact vectors, which it keeps
        "hnsw"      4 D + 256             fastest for single queries; slow to build, and to refresh is to
                                          build: for bases that stay
        ==========  ====================  ==================================================================

        `retrograd.index.approximate.count_lists` says how many lists. Raises `UserError` for another name, and for
        "ivf-pq" with a width that is no multiple of 4.
        """
        lists, probe = count_lists(rows)
        presets = {
            "flat": FaissPreset("Flat"),
            "ivf": FaissPreset(f"IVF{lists},Flat", probe),
            "ivf-sq8": FaissPreset(f"IVF{lists},SQ8", probe),
            "ivf-pq": FaissPreset(f"IVF{lists},PQ{width // 4}x4fs,RFlat", probe, 10),
            "hnsw": FaissPreset("HNSW32", 128),
        }
        if name not in presets:
            raise UserError(f"there is no preset {name!r}; {suggest_name(name, list(presets))}")
        if name == "ivf-pq" and width % 4:
            raise UserError(f"'ivf-pq' needs a width that is a multiple of 4, not {width}; take 'ivf-sq8'")
        return presets[name]

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def held_rows(self) -> range:
        """Return all rows of the base."""
        return range(len(self))

    @property
    def dimension(self) -> int:
        """Return D, the width of an embedding."""
        return self._index.d

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return approximately the k best rows per query, never one of ``exclude``; padded (-1, ``-inf``) where faiss
        found fewer.

        Takes k + E from faiss and drops the excluded ones, so k remain even if all E were hits. Logits are fp32, of the
        vectors as stored; ``log_normaliser`` is None. Raises as `ExactIndex.search` does.
        """
        return self._search(query, k, exclude, None)

    def search_among(
        self, rows: Int[Tensor, " n"], query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None
    ) -> Neighbours:
        """Return approximately the k best of ``rows``, which faiss filters as it searches; otherwise as `search`.

        Raises `UserError` for a factory that faiss cannot filter.
        """
        return self._search(query, k, exclude, rows)

    def _search(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None,
        rows: Int[Tensor, " n"] | None,
    ) -> Neighbours:
        requested = count_requested(query, k, exclude, len(self), self.dimension)
        parameters = None if rows is None else _filter_parameters(self._index, rows)
        try:
            logits, nearest = self._index.search(_array(query), requested, params=parameters)  # pyright: ignore[reportCallIssue]
        except RuntimeError as error:
            if rows is None or "params" not in str(error):
                raise
            reason = str(error).strip().splitlines()[-1]
            raise UserError(
                f"faiss cannot filter {self.factory!r} ({reason}); take the preset 'ivf' or 'flat'"
            ) from None
        row, logit = torch.from_numpy(nearest), torch.from_numpy(logits)
        return drop_rows(row.to(query.device), logit.to(query.device), exclude, k)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the embeddings as faiss stores them (decoded, so approximate for SQ and PQ), fp32; row -1 gives zeros.

        Raises `ValueError` for a row that does not exist, and `UserError` where faiss cannot give vectors back.
        """
        require_rows(row, len(self))
        if _FAST_SCAN.search(self.factory) and not _is_refined(self._index):
            raise UserError(f"faiss cannot give vectors back from {self.factory!r}; append ',RFlat' to train with it")
        row_here = row.reshape(-1).cpu()
        embeddings = torch.zeros(len(row_here), self.dimension)
        is_row = row_here >= 0
        if bool(is_row.any()):
            decoded = self._index.reconstruct_batch(row_here[is_row].numpy())  # pyright: ignore[reportCallIssue]
            embeddings[is_row] = torch.from_numpy(decoded)
        return embeddings.view(*row.shape, self.dimension).to(row.device)

    def save(self, path: Path) -> None:
        """Atomically write the folder ``path``: faiss's file and manifest.json. Replaces an index saved there.

        Raises `UserError` if ``path`` is a file, or a folder that holds anything else.
        """
        faiss = import_faiss()
        fingerprints = self.base_fingerprint, self.encoder_fingerprint
        manifest = Manifest(
            "faiss", *fingerprints, "faiss", len(self), self.dimension, self.factory, self.probe, self.recall
        )
        # faiss.write_index, killed half-way, leaves a file that cannot be read: write aside, then replace
        with index_directory(path, (_FILE, MANIFEST)) as folder:
            with atomic_file(folder / _FILE) as temporary:
                faiss.write_index(self._index, str(temporary))
            write_manifest(folder, manifest)

    @classmethod
    def load(
        cls, path: Path, *, base_fingerprint: str | None = None, encoder_fingerprint: str | None = None
    ) -> FaissIndex:
        """Load the index of a folder, or the current version of a folder of versions.

        Raises `UserError` if a fingerprint given is not its own, and for a damaged folder.
        """
        return read_current(path, lambda folder: cls._read(folder, base_fingerprint, encoder_fingerprint))

    @classmethod
    def _read(cls, path: Path, base_fingerprint: str | None, encoder_fingerprint: str | None) -> FaissIndex:
        faiss = import_faiss()
        manifest = read_manifest(path, "faiss", base_fingerprint, encoder_fingerprint)
        try:
            stored = faiss.read_index(str(path / _FILE))
        except (RuntimeError, MemoryError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise UserError(f"{path / _FILE} cannot be read ({reason}); copy it again or rebuild the index") from None
        if stored is None:
            raise UserError(f"{path / _FILE} holds no index; copy it again or rebuild the index")
        if manifest.probe is not None and not 1 <= manifest.probe < 2**31:
            raise UserError(f"{path / MANIFEST}: probe is {manifest.probe}, expected at least 1; rebuild the index")
        if (stored.ntotal, stored.d) != (manifest.rows, manifest.dimension):
            raise UserError(
                f"{path / _FILE} holds {stored.ntotal} x {stored.d} numbers, the manifest says "
                f"{manifest.rows} x {manifest.dimension}; rebuild the index"
            )
        return cls(
            _Stored(stored, manifest.recall or 0.0),
            manifest.factory or "",
            base_fingerprint=manifest.base_fingerprint,
            encoder_fingerprint=manifest.encoder_fingerprint,
            probe=manifest.probe,
        )


def import_faiss(what: str = "FaissIndex") -> ModuleType:
    """Return the package faiss. Raises `UserError` where it is not installed, naming ``what`` needs it."""
    require_package(what, "faiss-cpu", "faiss", module="faiss")
    import faiss

    return faiss


def _array(vectors: Float[Tensor, "_ D"]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return vectors.detach().to(device="cpu", dtype=torch.float32).contiguous().numpy()


def _build_index(vectors: Float[Tensor, "N D"], factory: str) -> faiss.Index:
    faiss = import_faiss()
    try:
        index = faiss.index_factory(vectors.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
        if not index.is_trained:
            index.train(_array(_training_rows(vectors, faiss.try_extract_index_ivf(index))))
        for block in vectors.split(_BLOCK_ROWS):
            index.add(_array(block))
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None and not _is_refined(index):
            lists.make_direct_map()  # without it an IVF index cannot return a vector by its row
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise UserError(
            f"faiss cannot build {factory!r} over {len(vectors)} x {vectors.shape[1]} vectors ({reason}); "
            "see 'The index factory' in faiss's wiki, and give IVF no more lists than vectors"
        ) from None
    return index


def _set_probe(index: faiss.Index, factory: str, probe: int | None) -> None:
    if probe is None:
        return
    if probe < 1:
        raise ValueError(f"probe is {probe}; expected at least 1")
    name = "efSearch" if "HNSW" in factory and "IVF" not in factory else "nprobe"
    try:
        import_faiss().ParameterSpace().set_index_parameter(index, name, probe)
    except RuntimeError:
        raise UserError(f"probe is {probe}, but {factory!r} has no {name}; leave probe out") from None


def _training_rows(vectors: Float[Tensor, "N D"], lists: faiss.IndexIVF | None) -> Float[Tensor, "_ D"]:
    """Return rows at equal distances, no more than faiss learns from, so that training needs no second copy of the
    base.
    """
    count = max(_TRAINING_ROWS, _TRAINING_ROWS_A_LIST * (0 if lists is None else lists.nlist))
    if len(vectors) <= count:
        return vectors
    return vectors[torch.arange(count, device=vectors.device) * len(vectors) // count]


def _is_refined(index: faiss.Index) -> bool:
    return isinstance(import_faiss().downcast_index(index), import_faiss().IndexRefine)


def _filter_parameters(index: faiss.Index, rows: Int[Tensor, " n"]) -> faiss.SearchParameters:
    """Return how faiss searches some rows alone, as hard as it otherwise would."""
    faiss = import_faiss()
    mask = torch.zeros(index.ntotal, dtype=torch.uint8)
    mask[rows] = 1
    selector = faiss.IDSelectorBitmap(np.packbits(mask.numpy(), bitorder="little"))
    return _filter_by(faiss.downcast_index(index), selector)


def _filter_by(index: Any, selector: faiss.IDSelector) -> faiss.SearchParameters:
    faiss = import_faiss()
    if isinstance(index, faiss.IndexRefine):
        inner = _filter_by(faiss.downcast_index(index.base_index), selector)
        return faiss.IndexRefineSearchParameters(k_factor=index.k_factor, base_index_params=inner)
    if isinstance(index, faiss.IndexPreTransform):
        inner = _filter_by(faiss.downcast_index(index.index), selector)
        return faiss.SearchParametersPreTransform(index_params=inner)
    if isinstance(index, faiss.IndexIVF):
        return faiss.SearchParametersIVF(sel=selector, nprobe=index.nprobe)
    if isinstance(index, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(sel=selector, efSearch=index.hnsw.efSearch)
    return faiss.SearchParameters(sel=selector)


def _set_rerank(index: faiss.Index, factory: str, rerank: int | None) -> None:
    if rerank is None:
        return
    if rerank < 1:
        raise ValueError(f"rerank is {rerank}; expected at least 1")
    if not _is_refined(index):
        raise UserError(f"rerank is {rerank}, but {factory!r} keeps no exact vectors; append ',RFlat' or leave it out")
    # faiss writes this factor into its file, so load() finds it there
    import_faiss().downcast_index(index).k_factor = float(rerank)
