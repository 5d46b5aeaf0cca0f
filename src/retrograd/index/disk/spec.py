"""What an index on disk is to be: rows, width, type, and all that two builds must have in common to be one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from retrograd.index.disk.storage import DTYPE_NAMES, Manifest, Shard
from retrograd.types import UserError

__all__ = ["SHARD_ROWS", "IndexSpec", "identity"]

SHARD_ROWS = 65_536
"""Rows of a shard. A multiple of the rows the exact index reads at once, so that it computes what it would on one
tensor; a kill costs at most the encoding of one shard."""


@dataclass(frozen=True)
class IndexSpec:
    """Specification of an index; ``encoding`` states in words all that determines a vector besides base and encoder.

    Two builds are one build if all of this is equal, but for ``source``, which is for people.
    """

    base_fingerprint: str
    encoder_fingerprint: str
    encoding: str
    rows: int
    dimension: int
    dtype: torch.dtype = torch.float32
    shard_rows: int = SHARD_ROWS
    source: str | None = None

    def __post_init__(self) -> None:
        if self.rows < 1 or self.dimension < 1:
            raise UserError(f"an index of {self.rows} x {self.dimension} numbers is empty; embed at least one passage")
        if self.shard_rows < 1:
            raise ValueError(f"shard_rows is {self.shard_rows}; expected at least 1")
        if self.dtype not in DTYPE_NAMES:
            raise UserError(f"dtype is {self.dtype}; expected torch.float32, torch.bfloat16 or torch.float16")

    def manifest(self, shards: Iterable[Shard] = ()) -> Manifest:
        """Return the manifest with these shards."""
        return Manifest(
            kind="exact",
            base_fingerprint=self.base_fingerprint,
            encoder_fingerprint=self.encoder_fingerprint,
            dtype=DTYPE_NAMES[self.dtype],
            rows=self.rows,
            dimension=self.dimension,
            encoding=self.encoding,
            source=self.source,
            shards=tuple(sorted(shards, key=lambda shard: shard.first_row)),
        )

    def ranges(self) -> list[tuple[str, int, int]]:
        """Return (file, first row, rows) of each shard."""
        first = range(0, self.rows, self.shard_rows)
        return [
            (f"shard-{number:05d}.safetensors", row, min(self.shard_rows, self.rows - row))
            for number, row in enumerate(first)
        ]

    def difference(self, other: Manifest) -> str | None:
        """Return the name of the first property in which a stored index differs, or None."""
        expected, stored = identity(self.manifest()), identity(other)
        return next((name for name in expected if expected[name] != stored[name]), None)


def identity(manifest: Manifest) -> dict[str, object]:
    """Return what two indexes must have in common for one to reuse the other's shards."""
    return {
        "kind": manifest.kind,
        "base_fingerprint": manifest.base_fingerprint,
        "encoder_fingerprint": manifest.encoder_fingerprint,
        "dtype": manifest.dtype,
        "encoding": manifest.encoding,
        "rows": manifest.rows,
        "dimension": manifest.dimension,
    }
