"""An index on disk: a folder of vectors (or a library's own file) and a manifest that says what they belong to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import get_type_hints

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retrograd.io import JsonValue, atomic_file, read_json, write_json
from retrograd.types import UserError

__all__ = ["DTYPE_NAMES", "Manifest", "read_manifest", "read_vectors", "write_manifest", "write_vectors"]

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
"""Storage types an index may have, with their names in a safetensors header."""

_MANIFEST = "manifest.json"
_TENSOR = "vectors"


@dataclass(frozen=True)
class Manifest:
    """What an index folder holds. ``kind`` is "exact" or "faiss"; the last three belong to faiss alone."""

    kind: str
    base_fingerprint: str
    encoder_fingerprint: str
    dtype: str
    rows: int
    dimension: int
    factory: str | None = None
    probe: int | None = None
    recall: float | None = None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write ``folder/manifest.json``."""
    write_json(folder / _MANIFEST, asdict(manifest))


def read_manifest(
    folder: Path, kind: str, base_fingerprint: str | None = None, encoder_fingerprint: str | None = None
) -> Manifest:
    """The manifest of an index folder.

    Raises `UserError` if there is none, if it is malformed or of another kind, or if a fingerprint that is given
    differs from the index's own.
    """
    path = folder / _MANIFEST
    if not path.is_file():
        raise UserError(f"{folder} is not an index: it holds no {_MANIFEST}; give the folder that save() wrote")
    manifest = _parsed(path, read_json(path))
    if manifest.kind != kind:
        raise UserError(
            f"{folder} holds a {manifest.kind!r} index, expected {kind!r}; load it with the class that saved it"
        )
    _require_same(folder, "knowledge base", manifest.base_fingerprint, base_fingerprint)
    _require_same(folder, "encoder", manifest.encoder_fingerprint, encoder_fingerprint)
    return manifest


def _parsed(path: Path, value: JsonValue) -> Manifest:
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; rebuild the index")
    names = [field.name for field in fields(Manifest)]
    if set(value) != set(names):
        odd = sorted(set(value) ^ set(names))
        raise UserError(f"{path}: missing or unknown field {odd[0]!r}; the index is of another version, rebuild it")
    for name, expected in get_type_hints(Manifest).items():
        if not isinstance(value[name], expected) or isinstance(value[name], bool):
            raise UserError(f"{path}: field {name!r} is {value[name]!r}, expected {expected}; rebuild the index")
    return Manifest(**value)  # pyright: ignore[reportArgumentType]  (checked field by field above)


def _require_same(folder: Path, what: str, stored: str, wanted: str | None) -> None:
    if wanted is not None and stored != wanted:
        raise UserError(
            f"{folder} was built from {what} {stored[:12]}, but this run uses {what} {wanted[:12]}; "
            f"rebuild the index, or use the {what} it was built from"
        )


def write_vectors(
    path: Path, blocks: Iterable[Float[Tensor, "_ _"]], rows: int, width: int, dtype: torch.dtype
) -> None:
    """Atomically write a matrix, block by block, as safetensors: memory O(block), whatever ``rows`` is.

    Raises `UserError` if the blocks do not sum to ``rows``.
    """
    size = rows * width * dtype.itemsize
    entry = {"dtype": DTYPE_NAMES[dtype], "shape": [rows, width], "data_offsets": [0, size]}
    header = json.dumps({_TENSOR: entry}).encode()
    header += b" " * (-len(header) % 8)  # the format asks for 8-byte alignment of the data
    written = 0
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        for block in blocks:
            raw = block.detach().to(device="cpu", dtype=dtype).contiguous()
            file.write(raw.view(-1).view(torch.uint8).numpy().data)
            written += len(block)
        if written != rows:
            raise UserError(f"the blocks hold {written} rows, expected {rows}; embed each passage exactly once")


def read_vectors(path: Path, rows: int, width: int) -> Float[Tensor, "N D"]:
    """The matrix of a file, memory-mapped. Raises `UserError` if it is damaged or has another shape."""
    try:
        with safe_open(path, framework="pt") as file:
            vectors = file.get_tensor(_TENSOR)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy it again or rebuild the index") from None
    if tuple(vectors.shape) != (rows, width):
        raise UserError(
            f"{path} holds {tuple(vectors.shape)} numbers, the manifest says ({rows}, {width}); rebuild the index"
        )
    return vectors
