"""Plan of building an index: passages, disk, memory and time, and an error beforehand if it cannot fit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from retrograd.types import UserError
from retrograd.util.machine import free_memory, readable_bytes, readable_seconds

__all__ = ["BuildPlan", "require_memory"]

# Manifest and file system need a little as well.
_MARGIN_BYTES = 1 << 20


@dataclass(frozen=True)
class BuildPlan:
    """The needs of embedding ``remaining`` of ``passages`` passages to width ``dimension``, into the folder ``place``.

    ``seconds_per_passage`` is measured on a probe; ``resident_bytes`` is the most memory this process has held, the
    encoder and the probe included. From there on the build adds one block of ``block_rows`` passages at a time, which
    goes to the disk as it comes; longer texts than the probe's may take more, so memory is said with an "about".
    ``free_disk`` (with what the build will discard first) and ``free_memory`` are bytes, after the probe; None where
    the system does not tell.
    """

    place: Path
    passages: int
    remaining: int
    dimension: int
    dtype: torch.dtype
    block_rows: int
    seconds_per_passage: float
    resident_bytes: int
    free_disk: int | None
    free_memory: int | None

    @property
    def vector_bytes(self) -> int:
        """Return the bytes that all vectors take on disk."""
        return self.passages * self.dimension * self.dtype.itemsize

    @property
    def remaining_bytes(self) -> int:
        """Return the bytes still to be written."""
        return self.remaining * self.dimension * self.dtype.itemsize

    @property
    def block_bytes(self) -> int:
        """Return the bytes that the vectors of a block take: as computed and in the order of rows, both in fp32, and as
        stored.
        """
        return min(self.block_rows, self.passages) * self.dimension * (4 + 4 + self.dtype.itemsize)

    @property
    def peak_bytes(self) -> int:
        """Return about the peak memory of the process, in bytes."""
        return self.resident_bytes + self.block_bytes

    @property
    def seconds(self) -> float:
        """Return the seconds that encoding will take."""
        return self.remaining * self.seconds_per_passage

    def __str__(self) -> str:
        """Return the plan as three readable lines."""
        rate = f"{1 / self.seconds_per_passage:,.0f} passages/s" if self.seconds_per_passage > 0 else "rate unknown"
        finished = self.passages - self.remaining
        return "\n".join(
            [
                f"{self.passages:,} passages x {self.dimension} numbers in {_dtype_name(self.dtype)}"
                + (
                    f"; {finished:,} are done if undamaged (checked next), {self.remaining:,} remain"
                    if finished
                    else ""
                ),
                f"{readable_bytes(self.vector_bytes)} on disk, {_describe_free(self.free_disk)}; "
                f"about {readable_bytes(self.peak_bytes)} of memory (from the probe), "
                f"{_describe_free(self.free_memory)}",
                f"about {readable_seconds(self.seconds)} ({rate}, measured)",
            ]
        )

    def require_fit(self) -> None:
        """Raise `UserError` if what is still to come does not fit on the disk, or a block of it in memory.

        Encoder and probe are held or were held when memory was measured, so a block is what is added to them.
        """
        if self.remaining == 0:
            return
        if self.free_disk is not None and self.remaining_bytes + _MARGIN_BYTES > self.free_disk:
            remedies = ["free some space", "choose another place"]
            remedies += ["halve it with bf16"] if self.dtype.itemsize > 2 else []
            raise UserError(
                f"the index needs {readable_bytes(self.remaining_bytes)} more in {self.place}, and "
                f"{readable_bytes(_MARGIN_BYTES)} beside it for small files; {readable_bytes(self.free_disk)} are free "
                f"there; {', '.join(remedies[:-1])} or {remedies[-1]}"
            )
        if self.free_memory is not None and self.block_bytes > self.free_memory:
            raise UserError(
                f"a block of {self.block_rows:,} passages takes {readable_bytes(self.block_bytes)} of memory and "
                f"{readable_bytes(self.free_memory)} are free; stop other programs, or raise the container's limit"
            )


def require_memory(count: int) -> None:
    """Raise `UserError` if vectors of ``count`` bytes do not fit in the memory that is free now."""
    free = free_memory()
    if free is not None and count > free:
        raise UserError(
            f"the vectors need {readable_bytes(count)} of memory and {readable_bytes(free)} are free; "
            "build the index on disk, or store bf16"
        )


def _describe_free(count: int | None) -> str:
    return "free space unknown" if count is None else f"{readable_bytes(count)} free"


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
