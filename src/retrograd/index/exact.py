"""The exact index: everything over the *whole* base in one streaming pass (`retrograd.index.streaming`).

It is the reference for every other index. It has the log-normaliser over all passages, its gradient, and exact samples;
restricted and sharded indexes have them too, faiss and BM25 do not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.index.disk.storage import (
    DTYPE_NAMES,
    Manifest,
    read_manifest,
    read_shards,
    require_rows_to_store,
    write_index,
)
from retrograd.index.disk.versions import read_current
from retrograd.index.protocol import LogNormaliser, Neighbours, require_query, require_rows
from retrograd.index.shards import checked_blocks, split_blocks, take_rows
from retrograd.index.streaming import StreamResult, attach_gradient, gumbel_maxima, stream
from retrograd.index.top_rows import TopRows
from retrograd.types import UserError

__all__ = ["CheckedShards", "ExactIndex"]

# Each step costs some ten kernel launches on a GPU, so steps are large there; on a CPU a block and its logits should
# stay near the processor (500,000 x 384, 32 queries, two threads, top 20 with log Z and gradient: 319 ms with blocks of
# 65,536 rows, 308 with 16,384, 300 with 8,192). Half precision is widened block by block.
_CPU_BLOCK_ROWS, _CPU_WIDENED_BLOCK_ROWS, _GPU_BLOCK_ROWS = 8_192, 16_384, 131_072


@dataclass(frozen=True)
class CheckedShards:
    """Vectors that have been checked already: one tensor in memory, or one mapped from each file."""

    shards: tuple[Float[Tensor, "_ D"], ...]


class ExactIndex:
    """Embeddings of the N passages of one knowledge base, in memory or memory-mapped, searched exhaustively.

    ``vectors`` [N D] stay on their device (queries are brought there, results come back to the query's) and in
    ``dtype``: fp32, bf16 or fp16, float64 for tests; None keeps that of ``vectors``. Half precision halves the memory;
    it rounds the vectors once, and everything computed is exact for the rounded ones. A tensor that is right as it is
    is not copied before `replace` writes for the first time, so do not change it meanwhile. ``block_rows`` is how many
    rows the pass takes at once; it bounds memory and changes results only by rounding.

    Equal logits are ordered by row. The product itself may round equal vectors differently in the last bit where they
    stand at different places of a block.

    `CheckedShards` in the place of vectors are kept as they are.

    Raises `UserError` for a row that is not finite, for vectors that are all zero and for another dtype.
    """

    log_z: LogNormaliser = "exact"
    samples_exactly = True
    moves_rows = True
    keeps_embeddings = True
    is_spread = False
    saves_with_model = True

    def __init__(
        self,
        vectors: Float[Tensor, "N D"] | CheckedShards,
        *,
        base_fingerprint: str,
        encoder_fingerprint: str,
        dtype: torch.dtype | None = None,
        block_rows: int | None = None,
    ) -> None:
        checked = vectors if isinstance(vectors, CheckedShards) else None
        if isinstance(vectors, CheckedShards):
            self._shards, self._shares_memory = vectors.shards, False
        else:
            stored = vectors.detach().to(_require_supported(dtype or vectors.dtype)).contiguous()
            # A tensor that was not copied is the caller's too.
            self._shards, self._shares_memory = (stored,), stored.data_ptr() == vectors.data_ptr()
        self._rows = sum(len(shard) for shard in self._shards)
        self._block_rows = block_rows or _default_block_rows(self._shards[0])
        self._top_rows = TopRows(self._shards, self._block_rows)
        self.base_fingerprint = base_fingerprint
        self.encoder_fingerprint = encoder_fingerprint
        if checked is None:
            for _ in checked_blocks(self._shards[0].split(self._block_rows), self._rows, self.dtype):
                pass

    @classmethod
    def from_blocks(
        cls,
        blocks: Iterable[Float[Tensor, "_ _"]],
        rows: int,
        *,
        base_fingerprint: str,
        encoder_fingerprint: str,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
        path: Path | None = None,
    ) -> ExactIndex:
        """Build an index from consecutive blocks of rows, held in memory once; the first block determines D.

        With ``path``, blocks go straight to that folder, in memory O(block), and the index is mapped from it.
        Raises `UserError` for a row that is not finite (as soon as it comes), unless the blocks sum to ``rows``, for no
        rows at all, and if there is anything but such an index in ``path``.
        """
        _require_supported(dtype)
        later_blocks = checked_blocks(blocks, rows, dtype)
        first = next(later_blocks, None)
        if first is None:
            raise UserError("there are no blocks of vectors; embed at least one passage")
        require_rows_to_store(rows)
        all_blocks, width = chain([first], later_blocks), first.shape[1]
        if path is not None:
            manifest = Manifest("exact", base_fingerprint, encoder_fingerprint, DTYPE_NAMES[dtype], rows, width)
            write_index(path, all_blocks, manifest)
            return cls.load(path, device=device)
        vectors = torch.empty(rows, width, dtype=dtype, device=device)
        row = 0
        for block in all_blocks:
            vectors[row : row + len(block)] = block
            row += len(block)
        shards = CheckedShards((vectors,))
        return cls(shards, base_fingerprint=base_fingerprint, encoder_fingerprint=encoder_fingerprint)

    def __len__(self) -> int:
        return self._rows

    @property
    def held_rows(self) -> range:
        """Return all rows of the base."""
        return range(len(self))

    @property
    def dimension(self) -> int:
        """Return D, the width of an embedding."""
        return self._shards[0].shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """Return the storage type."""
        return self._shards[0].dtype

    @property
    def device(self) -> torch.device:
        """Return the device of the vectors."""
        return self._shards[0].device

    def search(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None = None,
        *,
        excluded_rows: Bool[Tensor, " N"] | None = None,
    ) -> Neighbours:
        """Return the k best rows of each query, never one of ``exclude`` (-1 is padding), and log Z over all other
        rows.

        Rows and logits are detached, fp32 (float64 for float64 vectors), padded with -1 and ``-inf``. log Z in nats is
        differentiable once with respect to the query; without rows its value is ``-inf`` and its gradient zero. Asking
        for the gradient (a query that requires it) costs a second product with the vectors. ``excluded_rows`` are
        excluded for every query (`RestrictedIndex`).

        Raises `UserError` if the query's width is not D or a query is not finite, `ValueError` if ``k < 1`` or a row to
        exclude does not exist.
        """
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        result, log_normaliser = self._stream(query, k, exclude, excluded_rows)
        return Neighbours(result.row.to(query.device), result.logit.to(query.device), log_normaliser)

    def top_k(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None = None,
        *,
        bf16_product: bool | None = None,
    ) -> Neighbours:
        """Return the rows of `search` without log Z (None), which is cheaper for ranking without learning.

        From bf16 storage the rows may be found by a bf16 product: the same rows (`retrograd.index.top_rows` says why),
        and logits that are equal up to fp32 rounding. None does so where it measured, once, that this is faster here.
        Raises as `search` does.
        """
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        require_query(query, exclude, len(self), self.dimension)
        best = self._top_rows.search(query.detach().to(self.device), k, exclude, bf16_product)
        return Neighbours(best.row.to(query.device), best.logit.to(query.device), None)

    def prefers_bf16_product(self, query: Float[Tensor, "B D"], k: int) -> bool:
        """Return whether `top_k` chooses a bf16 product for such a batch: only if it was faster when measured."""
        return self._top_rows.bf16_pays(query.detach().to(self.device), k)

    def log_normaliser(
        self,
        query: Float[Tensor, "B D"],
        exclude: Int[Tensor, "B E"] | None = None,
        *,
        excluded_rows: Bool[Tensor, " N"] | None = None,
    ) -> Float[Tensor, " B"]:
        """Return log Z alone, with value, gradient and errors as in `search`."""
        return self._stream(query, 0, exclude, excluded_rows)[1]

    def sample(
        self,
        query: Float[Tensor, "B D"],
        draws: int,
        rng: torch.Generator,
        exclude: Int[Tensor, "B E"] | None = None,
        *,
        excluded_rows: Bool[Tensor, " N"] | None = None,
    ) -> Int[Tensor, "B M"]:
        """Draw ``draws`` independent rows of each query, with replacement, exactly from softmax(logits) over the whole
        base.

        One pass. A query whose rows are all excluded gets -1. Raises as `search` does.
        """
        return self.gumbel_maxima(query, draws, rng, exclude, excluded_rows=excluded_rows)[0]

    def gumbel_maxima(
        self,
        query: Float[Tensor, "B D"],
        draws: int,
        rng: torch.Generator,
        exclude: Int[Tensor, "B E"] | None = None,
        *,
        excluded_rows: Bool[Tensor, " N"] | None = None,
    ) -> tuple[Int[Tensor, "B M"], Float[Tensor, "B M"]]:
        """Draw as `sample` does, and return the winning perturbed logits (float64) too: see `ShardedIndex`."""
        if draws < 1:
            raise ValueError(f"draws is {draws}; expected at least 1")
        require_query(query, exclude, len(self), self.dimension)
        query_on_device = query.detach().to(self.device)
        row, value = gumbel_maxima(
            self._shards,
            query_on_device,
            draws,
            rng,
            exclude,
            block_rows=self._block_rows,
            excluded_rows=self._move_mask(excluded_rows),
        )
        return row.to(query.device), value.to(query.device)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Return the stored embeddings of the rows, as fp32 (float64 if stored so) on the device of ``row``; -1 gives
        zeros.

        Raises `ValueError` for a row that does not exist.
        """
        require_rows(row, len(self))
        position = row.reshape(-1).to(self.device)
        dtype = torch.promote_types(self.dtype, torch.float32)
        if len(self) == 0:
            return torch.zeros(*row.shape, self.dimension, dtype=dtype, device=row.device)
        embeddings = take_rows(self._shards, position.clamp(min=0)).to(dtype)
        return embeddings.masked_fill_((position < 0)[:, None], 0).view(*row.shape, self.dimension).to(row.device)

    def replace(self, row: Int[Tensor, " Z"], vectors: Float[Tensor, "Z D"], encoder_fingerprint: str) -> None:
        """Store other embeddings for some distinct rows, in place; the index is then marked ``encoder_fingerprint``.

        A row -1 is skipped. Files that an index is mapped from stay as they are: the pages written to become this
        process's own. A tensor that the caller gave stays as it is: the first call copies it, whole.

        Raises `UserError` for an embedding that is not finite, `ValueError` for a row that does not exist.
        """
        require_rows(row, len(self))
        stored = vectors.detach().to(self._shards[0])
        if not bool(stored.isfinite().all()):
            raise UserError(f"an embedding to store in {self.dtype} is not finite; check the encoder")
        if self._shares_memory:
            self._shards, self._shares_memory = tuple(shard.clone() for shard in self._shards), False
            self._top_rows = TopRows(self._shards, self._block_rows)
        row_here, first_row = row.to(stored.device), 0
        for shard in self._shards:
            in_shard = (row_here >= first_row) & (row_here < first_row + len(shard))
            shard[row_here[in_shard] - first_row] = stored[in_shard]
            first_row += len(shard)
        self._top_rows.forget_vectors()
        self.encoder_fingerprint = encoder_fingerprint

    def relabel(self, base_fingerprint: str, encoder_fingerprint: str) -> ExactIndex:
        """Return an index of the very same vectors under other fingerprints; `replace` on one changes both."""
        shards = CheckedShards(tuple(self._shards))
        return ExactIndex(shards, base_fingerprint=base_fingerprint, encoder_fingerprint=encoder_fingerprint)

    def save(self, path: Path) -> None:
        """Atomically write the folder ``path``: one file of vectors, and manifest.json. Replaces an index saved there.

        Raises `UserError` if ``path`` is a file, or a folder that holds anything else.
        """
        fingerprints = self.base_fingerprint, self.encoder_fingerprint
        manifest = Manifest("exact", *fingerprints, DTYPE_NAMES[self.dtype], len(self), self.dimension)
        write_index(path, (block for _, block in split_blocks(self._shards, self._block_rows)), manifest)

    @classmethod
    def load(
        cls,
        path: Path,
        *,
        base_fingerprint: str | None = None,
        encoder_fingerprint: str | None = None,
        device: torch.device | str = "cpu",
        block_rows: int | None = None,
    ) -> ExactIndex:
        """Load the index of a folder, or the current version of a folder of versions.

        On the CPU it is memory-mapped, in as many shards as there are files; to any other device it is copied, as one.
        Checksums are not compared (`retrograd.index.disk.storage.verify_shard` does that): it would read everything.

        Raises `UserError` if a fingerprint that is given is not the index's own, and for a damaged folder.
        """

        def read(folder: Path) -> tuple[Manifest, list[Float[Tensor, "_ D"]]]:
            manifest = read_manifest(folder, "exact", base_fingerprint, encoder_fingerprint)
            return manifest, read_shards(folder, manifest)

        manifest, shards = read_current(path, read)
        return cls(
            CheckedShards(tuple(_copy_to_device(device, shards))),  # a check would read all the mapped files
            base_fingerprint=manifest.base_fingerprint,
            encoder_fingerprint=manifest.encoder_fingerprint,
            block_rows=block_rows,
        )

    def _stream(
        self,
        query: Float[Tensor, "B D"],
        k: int,
        exclude: Int[Tensor, "B E"] | None,
        excluded_rows: Bool[Tensor, " N"] | None,
    ) -> tuple[StreamResult, Float[Tensor, " B"]]:
        require_query(query, exclude, len(self), self.dimension)
        with_gradient = query.requires_grad and torch.is_grad_enabled()
        query_on_device = query.detach().to(self.device)
        result = stream(
            self._shards,
            query_on_device,
            k,
            exclude,
            block_rows=self._block_rows,
            need_mean=with_gradient,
            excluded_rows=self._move_mask(excluded_rows),
        )
        value = result.log_normaliser.to(query.device)
        if result.mean is None:
            return result, value
        return result, attach_gradient(query, value, result.mean.to(query.device))

    def _move_mask(self, excluded_rows: Bool[Tensor, " N"] | None) -> Bool[Tensor, " N"] | None:
        if excluded_rows is not None and len(excluded_rows) != len(self):
            raise ValueError(f"excluded_rows has {len(excluded_rows)} rows, the index has {len(self)}")
        return None if excluded_rows is None else excluded_rows.to(self.device)


def _copy_to_device(device: torch.device | str, shards: list[Float[Tensor, "_ D"]]) -> list[Float[Tensor, "_ D"]]:
    """Return the shards themselves on the CPU, else one copy of all, filled shard by shard so that memory is not
    doubled.
    """
    if torch.device(device).type == "cpu":
        return shards
    whole = shards[0].new_empty(sum(len(shard) for shard in shards), shards[0].shape[1], device=device)
    for first_row, shard in split_blocks(shards, max(1, *(len(shard) for shard in shards))):
        whole[first_row : first_row + len(shard)] = shard
    return [whole]


def _default_block_rows(vectors: Float[Tensor, "N D"]) -> int:
    if vectors.device.type != "cpu":
        return _GPU_BLOCK_ROWS
    return _CPU_WIDENED_BLOCK_ROWS if vectors.dtype.itemsize == 2 else _CPU_BLOCK_ROWS


def _require_supported(dtype: torch.dtype) -> torch.dtype:
    if dtype not in DTYPE_NAMES:
        raise UserError(f"dtype is {dtype}; expected torch.float32, torch.bfloat16 or torch.float16")
    return dtype
