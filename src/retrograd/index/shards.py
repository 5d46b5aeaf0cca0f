"""A matrix of embeddings in consecutive parts: in memory it is one tensor, on disk it may be many mapped files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.types import UserError

__all__ = ["checked_blocks", "split_blocks", "take_rows"]


def split_blocks(shards: Sequence[Float[Tensor, "_ D"]], block_rows: int) -> Iterator[tuple[int, Float[Tensor, "_ D"]]]:
    """Yield (first row, views of at most ``block_rows`` rows), in order; no block is empty and none spans two
    shards.
    """
    first_row = 0
    for shard in shards:
        for start in range(0, len(shard), block_rows):
            yield first_row + start, shard[start : start + block_rows]
        first_row += len(shard)


def take_rows(shards: Sequence[Float[Tensor, "_ D"]], row: Int[Tensor, " n"]) -> Float[Tensor, "n D"]:
    """Return copies of the given rows (0 … N-1), in the given order and in the storage type."""
    if len(shards) == 1:
        return shards[0][row]
    copies = shards[0].new_empty(len(row), shards[0].shape[1])
    ordered, order = row.sort()
    stops = torch.tensor([len(shard) for shard in shards], device=row.device).cumsum(0)
    ends = torch.searchsorted(ordered, stops).tolist()  # how many of the rows asked for lie before each shard's end
    for shard, stop, begin, end in zip(shards, stops.tolist(), [0, *ends], ends, strict=False):
        if begin < end:
            copies[order[begin:end]] = shard[ordered[begin:end] - (stop - len(shard))]
    return copies


def checked_blocks(
    blocks: Iterable[Float[Tensor, "_ _"]], rows: int, dtype: torch.dtype, first_row: int = 0
) -> Iterator[Float[Tensor, "_ _"]]:
    """Yield the blocks in the storage type, checking each as it arrives, so that a long build fails at its first bad
    row.

    Raises `UserError` for a row that is not finite, for a change of width, if there are not exactly ``rows`` rows, and
    if all are zero. ``first_row`` is the number of the first one, for these messages.
    """
    rows_read, width, any_value = 0, None, False
    for block in blocks:
        width = width or block.shape[1]
        if block.shape[1] != width:
            raise UserError(
                f"the block from row {first_row + rows_read} on has width {block.shape[1]}, those before {width}"
            )
        if rows_read + len(block) > rows:
            raise UserError(f"the blocks hold more than {rows} rows; embed each passage exactly once")
        stored = block.detach().to(dtype)
        _require_finite(stored, first_row + rows_read)
        any_value = any_value or bool(stored.any())
        yield stored
        rows_read += len(block)
    if rows_read != rows:
        raise UserError(f"the blocks hold {rows_read} rows, expected {rows}; embed each passage exactly once")
    if rows and not any_value:
        raise UserError(f"all {rows} vectors, from row {first_row} on, are zero; check the encoder and its pooling")


def _require_finite(block: Float[Tensor, "_ D"], first_row: int) -> None:
    finite = block.isfinite()
    if bool(finite.all()):
        return
    row = first_row + int((~finite).any(dim=1).nonzero()[0])
    raise UserError(
        f"the vector of row {row} is not finite in {block.dtype}; check the encoder on that passage"
        + (" (fp16 ends at 65504: store bf16 or fp32)" if block.dtype == torch.float16 else "")
    )
