"""The exact index: everything over the *whole* base in one streaming pass (`retrograd.corpus.streaming`).

It is the reference for every other index, and the only one with a log-normaliser, its gradient and exact samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from retrograd.corpus.index import Neighbours, require_query, require_rows
from retrograd.corpus.storage import DTYPE_NAMES, Manifest, read_manifest, read_vectors, write_manifest, write_vectors
from retrograd.corpus.streaming import StreamResult, sample_rows, stream
from retrograd.io import atomic_directory
from retrograd.types import UserError

__all__ = ["ExactIndex"]

_VECTORS = "vectors.safetensors"
# Each step costs some ten kernel launches on a GPU and six meetings of the threads on a CPU (on a busy machine each may
# wait for a time slice), so steps are large; but a block of half precision is widened, and must then still be near the
# processor (200,000 x 384, one thread, in bare products: fp32 2.2 at 16,384 rows, 2.1 at 65,536; bf16 2.2 and 3.0).
_CPU_BLOCK_ROWS, _CPU_WIDENED_BLOCK_ROWS, _GPU_BLOCK_ROWS = 65_536, 16_384, 131_072


class ExactIndex:
    """Embeddings of the N passages of one knowledge base, in memory or memory-mapped, searched exhaustively.

    ``vectors`` [N D] stay on their device (queries are brought there, results come back to the query's) and in
    ``dtype``: fp32, bf16 or fp16, float64 for tests; None keeps that of ``vectors``. Half precision halves the memory;
    it rounds the vectors once, and everything computed is exact for the rounded ones. ``block_rows`` is how many rows
    the pass takes at once; it bounds memory and changes results only by rounding.

    Equal logits are ordered by row. The product itself may round equal vectors differently in the last bit where they
    stand at different places of a block.

    Raises `UserError` for a row that is not finite, for vectors that are all zero and for another dtype.
    """

    def __init__(
        self,
        vectors: Float[Tensor, "N D"],
        *,
        base_fingerprint: str,
        encoder_fingerprint: str,
        dtype: torch.dtype | None = None,
        block_rows: int | None = None,
    ) -> None:
        stored = vectors.detach().to(_supported(dtype or vectors.dtype)).contiguous()
        self._keep(stored, base_fingerprint, encoder_fingerprint, block_rows)
        for _ in _checked(stored.split(self._block_rows), len(stored), stored.dtype):
            pass

    def _keep(
        self, vectors: Float[Tensor, "N D"], base_fingerprint: str, encoder_fingerprint: str, block_rows: int | None
    ) -> None:
        self._vectors = vectors
        self._block_rows = block_rows or _default_block_rows(vectors)
        self.base_fingerprint = base_fingerprint
        self.encoder_fingerprint = encoder_fingerprint

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
        """The same from consecutive blocks of rows, held in memory once; the first block says D.

        With ``path``, blocks go straight to that folder, in memory O(block), and the index is mapped from it.
        Raises `UserError` for a row that is not finite (as soon as it comes) and unless the blocks sum to ``rows``.
        """
        _supported(dtype)
        checked = _checked(blocks, rows, dtype)
        first = next(checked, None)
        if first is None:
            raise UserError("there are no blocks of vectors; embed at least one passage")
        checked, width = chain([first], checked), first.shape[1]
        if path is not None:
            manifest = Manifest("exact", base_fingerprint, encoder_fingerprint, DTYPE_NAMES[dtype], rows, width)
            _write(path, checked, manifest)
            return cls.load(path, device=device)
        vectors = torch.empty(rows, width, dtype=dtype, device=device)
        filled = 0
        for block in checked:
            vectors[filled : filled + len(block)] = block
            filled += len(block)
        index = cls.__new__(cls)  # not __init__: the blocks have been checked
        index._keep(vectors, base_fingerprint, encoder_fingerprint, None)
        return index

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        """D, the width of an embedding."""
        return self._vectors.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """The storage type."""
        return self._vectors.dtype

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """The k best rows of each query, never one of ``exclude`` (-1 is padding), and log Z over all other rows.

        Rows and logits are detached, fp32 (float64 for float64 vectors), padded with -1 and ``-inf``. log Z in nats is
        differentiable once with respect to the query; without rows its value is ``-inf`` and its gradient zero. Asking
        for the gradient (a query that requires it) costs a second product with the vectors.

        Raises `UserError` if the query's width is not D, `ValueError` if ``k < 1`` or a row to exclude does not exist.
        """
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        found, log_normaliser = self._stream(query, k, exclude)
        return Neighbours(found.row.to(query.device), found.logit.to(query.device), log_normaliser)

    def log_normaliser(
        self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"] | None = None
    ) -> Float[Tensor, " B"]:
        """log Z alone, as in `search`: value, gradient, errors."""
        return self._stream(query, 0, exclude)[1]

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        """``draws`` independent rows of each query, with replacement, exactly from softmax(logits) over the whole base.

        One pass. A query whose rows are all excluded gets -1. Raises as `search` does.
        """
        if draws < 1:
            raise ValueError(f"draws is {draws}; expected at least 1")
        require_query(query, exclude, len(self), self.dimension)
        brought = query.detach().to(self._vectors.device)
        row = sample_rows(self._vectors, brought, draws, rng, exclude, block_rows=self._block_rows)
        return row.to(query.device)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        """Stored embeddings of the rows, as fp32 (float64 if stored so) on the device of ``row``; -1 gives zeros.

        Raises `ValueError` for a row that does not exist.
        """
        require_rows(row, len(self))
        place = row.to(self._vectors.device)
        dtype = torch.promote_types(self.dtype, torch.float32)
        if len(self) == 0:
            return torch.zeros(*row.shape, self.dimension, dtype=dtype, device=row.device)
        found = self._vectors[place.clamp(min=0)].to(dtype)
        return found.masked_fill_((place < 0)[..., None], 0).to(row.device)

    def save(self, path: Path) -> None:
        """Atomically write the folder ``path``: vectors.safetensors and manifest.json."""
        fingerprints = self.base_fingerprint, self.encoder_fingerprint
        manifest = Manifest("exact", *fingerprints, DTYPE_NAMES[self.dtype], len(self), self.dimension)
        _write(path, self._vectors.split(self._block_rows), manifest)

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
        """The index of a folder: memory-mapped on the CPU, copied to any other device.

        Raises `UserError` if a fingerprint that is given is not the index's own, and for a damaged folder.
        """
        manifest = read_manifest(path, "exact", base_fingerprint, encoder_fingerprint)
        stored = read_vectors(path / _VECTORS, manifest.rows, manifest.dimension).to(device)
        if DTYPE_NAMES.get(stored.dtype) != manifest.dtype:
            raise UserError(
                f"{path}: vectors are {stored.dtype}, the manifest says {manifest.dtype}; rebuild the index"
            )
        index = cls.__new__(cls)  # not __init__: its check would read the whole mapped file
        index._keep(stored, manifest.base_fingerprint, manifest.encoder_fingerprint, block_rows)
        return index

    def _stream(
        self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None
    ) -> tuple[StreamResult, Float[Tensor, " B"]]:
        require_query(query, exclude, len(self), self.dimension)
        with_gradient = query.requires_grad and torch.is_grad_enabled()
        brought = query.detach().to(self._vectors.device)
        found = stream(self._vectors, brought, k, exclude, block_rows=self._block_rows, need_mean=with_gradient)
        value = found.log_normaliser.to(query.device)
        if found.mean is None:
            return found, value
        return found, _WithGradient.apply(query, value, found.mean.to(query.device))


class _WithGradient(torch.autograd.Function):
    """log Z, already computed, with its gradient: d log Z / d query = the softmax-mean embedding."""

    @staticmethod
    def forward(
        ctx: FunctionCtx, query: Float[Tensor, "B D"], value: Float[Tensor, " B"], mean: Float[Tensor, "B D"]
    ) -> Float[Tensor, " B"]:
        ctx.save_for_backward(mean.to(query.dtype))
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: FunctionCtx, grad: Float[Tensor, " B"]
    ) -> tuple[Float[Tensor, "B D"], None, None]:
        (mean,) = ctx.saved_tensors  # pyright: ignore[reportAttributeAccessIssue]
        return grad[:, None].to(mean.dtype) * mean, None, None


def _write(path: Path, blocks: Iterable[Float[Tensor, "_ _"]], manifest: Manifest) -> None:
    dtype = next(dtype for dtype, name in DTYPE_NAMES.items() if name == manifest.dtype)
    with atomic_directory(path) as folder:
        write_vectors(folder / _VECTORS, blocks, manifest.rows, manifest.dimension, dtype)
        write_manifest(folder, manifest)


def _default_block_rows(vectors: Float[Tensor, "N D"]) -> int:
    if vectors.device.type != "cpu":
        return _GPU_BLOCK_ROWS
    return _CPU_WIDENED_BLOCK_ROWS if vectors.dtype.itemsize == 2 else _CPU_BLOCK_ROWS


def _supported(dtype: torch.dtype) -> torch.dtype:
    if dtype not in DTYPE_NAMES:
        raise UserError(f"dtype is {dtype}; expected torch.float32, torch.bfloat16 or torch.float16")
    return dtype


def _checked(blocks: Iterable[Float[Tensor, "_ _"]], rows: int, dtype: torch.dtype) -> Iterator[Float[Tensor, "_ _"]]:
    """The blocks in the storage type, each checked on arrival: a long build fails at its first bad row."""
    seen, width, any_value = 0, None, False
    for block in blocks:
        width = width or block.shape[1]
        if block.shape[1] != width:
            raise UserError(f"the block from row {seen} on has width {block.shape[1]}, those before {width}")
        if seen + len(block) > rows:
            raise UserError(f"the blocks hold more than {rows} rows; embed each passage exactly once")
        stored = block.detach().to(dtype)
        _require_finite(stored, seen)
        any_value = any_value or bool(stored.any())
        yield stored
        seen += len(block)
    if seen != rows:
        raise UserError(f"the blocks hold {seen} rows, expected {rows}; embed each passage exactly once")
    if rows and not any_value:
        raise UserError(f"all {rows} vectors, from row 0 on, are zero; check the encoder and its pooling")


def _require_finite(block: Float[Tensor, "_ D"], first_row: int) -> None:
    finite = block.isfinite()
    if bool(finite.all()):
        return
    row = first_row + int((~finite).any(dim=1).nonzero()[0])
    raise UserError(
        f"the vector of row {row} is not finite in {block.dtype}; check the encoder on that passage"
        + (" (fp16 ends at 65504: store bf16 or fp32)" if block.dtype == torch.float16 else "")
    )
