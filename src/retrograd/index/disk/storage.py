"""Storage of an index on disk: a folder of vectors (or a library's own file) and a manifest of what they belong to.

Vectors lie in one file or in many (shards), each a safetensors file of consecutive rows. The manifest lists them with
their checksums; while an index is being built, it lists those that are finished.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import BinaryIO, TypeVar, get_type_hints

import torch
from jaxtyping import Float
from safetensors import SafetensorError, safe_open
from torch import Tensor

from retrograd.types import UserError
from retrograd.util.files import atomic_directory, atomic_file
from retrograd.util.fingerprints import fingerprint, sha256_of
from retrograd.util.guards import JsonObject, JsonValue, is_file_name, is_within, require_file
from retrograd.util.text_files import read_json, write_json

__all__ = [
    "DTYPE_NAMES",
    "MANIFEST",
    "Manifest",
    "Shard",
    "find_dtype",
    "index_directory",
    "parse_manifest",
    "parse_record",
    "read_manifest",
    "read_sealed",
    "read_shards",
    "read_vectors",
    "require_rows_to_store",
    "require_same",
    "verify_shard",
    "write_index",
    "write_manifest",
    "write_sealed",
    "write_vectors",
]

DTYPE_NAMES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.float64: "F64"}
"""Storage types an index may have, with their names in a safetensors header."""

MANIFEST = "manifest.json"
_CHECKSUM = "checksum"
_TENSOR = "vectors"
_WHOLE = "vectors.safetensors"
_ALIGNMENT = 64
"""Bytes at a multiple of which torch begins a tensor on a CPU; the format itself asks for 8."""
# A shard's start tells a matrix of zeros from one that holds something, without reading it all.
_GLANCE_ROWS = 64


def find_dtype(name: str) -> torch.dtype:
    """Return the storage type that a manifest names."""
    return next(dtype for dtype, name_of_dtype in DTYPE_NAMES.items() if name_of_dtype == name)


@dataclass(frozen=True)
class Shard:
    """One file of vectors: rows ``first_row`` … ``first_row + rows - 1``, and the SHA-256 (hex) of the file."""

    file: str
    first_row: int
    rows: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    """The contents of an index; ``kind`` is "exact", "faiss" or "milvus".

    ``factory``, ``probe`` and ``recall`` belong to the approximate ones alone, the others after them to exact indexes:
    ``encoding`` says in words how texts became vectors (pooling, normalisation, precision), ``source`` names the run or
    experiment whose retriever did it, and ``shards`` are the files in the order of their rows.
    """

    kind: str
    base_fingerprint: str
    encoder_fingerprint: str
    dtype: str
    rows: int
    dimension: int
    factory: str | None = None
    probe: int | None = None
    recall: float | None = None
    encoding: str | None = None
    source: str | None = None
    shards: tuple[Shard, ...] = ()


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Atomically write ``folder/manifest.json``."""
    write_sealed(folder / MANIFEST, asdict(manifest))


def write_sealed(path: Path, value: Mapping[str, object]) -> None:
    """Atomically write a JSON object with a checksum of itself, because damage to a fingerprint would not show."""
    write_json(path, {**value, _CHECKSUM: _seal(value)})


def read_sealed(path: Path) -> JsonObject:
    """Read what `write_sealed` wrote, without the checksum. Raises `UserError` if it is missing or damaged.

    Versions before this checksum wrote none: then none is compared.
    """
    if not path.is_file():
        raise UserError(f"{path.parent} is not an index: it holds no {path.name}; give the folder that save() wrote")
    require_file(path)
    try:
        value = read_json(path)
    except UserError as error:
        raise UserError(f"the manifest is damaged ({error}); copy it again or rebuild the index") from None
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; rebuild the index")
    stored = value.pop(_CHECKSUM, None)
    if stored is not None and stored != _seal(value):
        raise UserError(f"{path} is damaged: it has changed since it was written; copy it again or rebuild the index")
    return value


def _seal(value: Mapping[str, object]) -> str:
    return fingerprint([json.dumps(value, sort_keys=True)])


def read_manifest(
    folder: Path, kind: str, base_fingerprint: str | None = None, encoder_fingerprint: str | None = None
) -> Manifest:
    """Read the manifest of an index folder.

    Raises `UserError` if there is none, if it is malformed, of another kind or of no rows, or if a fingerprint that is
    given differs from the index's own.
    """
    value = read_sealed(folder / MANIFEST)
    if value.get("kind") not in (kind, None):  # first, for other kinds have other fields
        raise UserError(
            f"{folder} holds a {value['kind']!r} index, expected {kind!r}; load it with the class that saved it"
        )
    manifest = _manifest(folder / MANIFEST, value)
    if manifest.rows < 1:
        raise UserError(f"{folder}: the index holds {manifest.rows} rows; build it again, over at least one passage")
    require_same(folder, "knowledge base", manifest.base_fingerprint, base_fingerprint)
    require_same(folder, "encoder", manifest.encoder_fingerprint, encoder_fingerprint)
    return manifest


def parse_manifest(folder: Path) -> Manifest:
    """Read the manifest of an index folder of any kind. Raises `UserError` if there is none or if it is malformed."""
    return _manifest(folder / MANIFEST, read_sealed(folder / MANIFEST))


def parse_record(where: str, value: JsonValue) -> Manifest:
    """Return the manifest of an index that is no folder, from JSON. Raises `UserError` where it is malformed."""
    fields_but_shards = (
        {name: part for name, part in value.items() if name != "shards"} if isinstance(value, dict) else value
    )
    return _record(Manifest, where, fields_but_shards)


def _manifest(path: Path, value: JsonObject) -> Manifest:
    entries = value.get("shards", [])
    if not isinstance(entries, list):
        raise UserError(f"{path}: field 'shards' is {entries!r}, expected a list; rebuild the index")
    manifest = _record(Manifest, path, {name: part for name, part in value.items() if name != "shards"})
    if manifest.kind == "exact" and manifest.dtype not in DTYPE_NAMES.values():
        known = ", ".join(DTYPE_NAMES.values())
        raise UserError(f"{path}: field 'dtype' is {manifest.dtype[:40]!r}, expected one of {known}; rebuild the index")
    shards = tuple(_record(Shard, path, part) for part in entries)
    for shard in shards:
        if not is_file_name(shard.file) or not is_within(path.parent, shard.file):
            raise UserError(f"{path}: a shard is {shard.file!r}, expected a file of this folder; rebuild the index")
    return replace(manifest, shards=shards)


_Record = TypeVar("_Record", Manifest, Shard)


def _record(kind: type[_Record], path: Path | str, value: JsonValue) -> _Record:
    """Read a record of plain fields; those with a default may be missing, because older versions left them out."""
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, found {type(value).__name__}; rebuild the index")
    names = {field.name for field in fields(kind)}
    needed = {field.name for field in fields(kind) if field.default is MISSING}
    odd = sorted((set(value) - names) | (needed - set(value)))
    if odd:
        raise UserError(f"{path}: missing or unknown field {odd[0]!r}; the index is of another version, rebuild it")
    hints = get_type_hints(kind)
    for name, part in value.items():
        if not isinstance(part, hints[name]) or isinstance(part, bool):
            raise UserError(f"{path}: field {name!r} is {part!r}, expected {hints[name]}; rebuild the index")
    return kind(**value)  # pyright: ignore[reportArgumentType]  (checked field by field above)


def require_same(where: Path | str, what: str, stored: str, expected: str | None) -> None:
    """Raise `UserError` if the fingerprint of ``what`` that an index was built from is not the expected one."""
    if expected is not None and stored != expected:
        length = 12 if stored[:12] != expected[:12] else None
        raise UserError(
            f"{where} was built from {what} {stored[:length]}, but this run uses {what} {expected[:length]}; "
            f"rebuild the index, or use the {what} it was built from"
        )


@contextmanager
def index_directory(path: Path, files: Iterable[str]) -> Iterator[Path]:
    """Write the folder of an index of the given ``files`` atomically, replacing such an index and nothing else.

    Raises `UserError`, before anything is written, if ``path`` is a file or a folder that holds anything else.
    """
    names = {entry.name for entry in path.iterdir()} if path.is_dir() else set()
    if names and names != set(files):
        foreign = min(names - set(files), default=None)
        difference = f"holds {foreign!r}" if foreign else f"lacks {min(set(files) - names)!r}"
        raise UserError(
            f"{path} is not empty, and not an index that may be replaced: it {difference}; "
            "choose another folder, or remove this one first"
        )
    with atomic_directory(path) as folder:
        yield folder


def write_index(path: Path, blocks: Iterable[Float[Tensor, "_ _"]], manifest: Manifest) -> None:
    """Atomically write the folder ``path``: the vectors in one file, and the manifest, which gets its checksum.

    Raises `UserError` for no rows, if the blocks do not sum to those of the manifest, and as `index_directory` does.
    """
    require_rows_to_store(manifest.rows)
    with index_directory(path, (MANIFEST, _WHOLE)) as folder:
        dtype = find_dtype(manifest.dtype)
        checksum = write_vectors(folder / _WHOLE, blocks, manifest.rows, manifest.dimension, dtype)
        shard = Shard(_WHOLE, 0, manifest.rows, checksum)
        write_manifest(folder, replace(manifest, shards=(shard,)))


def require_rows_to_store(rows: int) -> None:
    """Raise `UserError` for an index without rows."""
    if rows < 1:
        raise UserError(f"an index of {rows} rows cannot be stored; embed at least one passage")


def write_vectors(path: Path, blocks: Iterable[Float[Tensor, "_ _"]], rows: int, width: int, dtype: torch.dtype) -> str:
    """Atomically write a matrix, block by block, as safetensors: memory O(block), whatever ``rows`` is.

    Returns the file's SHA-256 (hex). Raises `UserError` if the blocks do not sum to ``rows``.
    """
    size = rows * width * dtype.itemsize
    entry = {"dtype": DTYPE_NAMES[dtype], "shape": [rows, width], "data_offsets": [0, size]}
    header = json.dumps({_TENSOR: entry}).encode()
    # Mapped vectors then lie as torch lays them in memory: elsewhere a product may round the last bit otherwise.
    header += b" " * (-(8 + len(header)) % _ALIGNMENT)
    digest = hashlib.sha256()
    rows_written = 0
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        _append(file, digest, len(header).to_bytes(8, "little") + header)
        for block in blocks:
            raw = block.detach().to(device="cpu", dtype=dtype).contiguous()
            _append(file, digest, raw.view(-1).view(torch.uint8).numpy().data)
            rows_written += len(block)
        if rows_written != rows:
            raise UserError(f"the blocks hold {rows_written} rows, expected {rows}; embed each passage exactly once")
    return digest.hexdigest()


def _append(file: BinaryIO, digest: hashlib._Hash, raw: bytes | memoryview) -> None:
    file.write(raw)
    digest.update(raw)


def read_shards(folder: Path, manifest: Manifest) -> list[Float[Tensor, "_ D"]]:
    """Return the vectors of an exact index, memory-mapped, file by file.

    Raises `UserError` if the files do not cover the rows, for one that is damaged or of another shape or type, and for
    one that holds nothing but zeros.
    """
    shards = []
    for shard in _require_all_rows(folder, manifest):
        path = folder / shard.file
        stored = read_vectors(path, shard.rows, manifest.dimension)
        if DTYPE_NAMES.get(stored.dtype) != manifest.dtype:
            raise UserError(
                f"{path}: vectors are {stored.dtype}, the manifest says {manifest.dtype}; rebuild the index"
            )
        if len(stored) and not any(bool(part.any()) for part in stored.split(_GLANCE_ROWS)):
            raise UserError(f"{path}: all {len(stored)} vectors are zero; rebuild the index")
        shards.append(stored)
    return shards


def _require_all_rows(folder: Path, manifest: Manifest) -> Sequence[Shard]:
    if not manifest.shards:  # as versions before checksums wrote it
        return (Shard(_WHOLE, 0, manifest.rows, ""),)
    row = 0
    for shard in manifest.shards:
        if shard.first_row != row:
            break
        row += shard.rows
    if row != manifest.rows:
        raise UserError(
            f"{folder / MANIFEST}: the files hold rows 0 … {row - 1}, expected {manifest.rows} rows; "
            "the index is incomplete, build it again"
        )
    return manifest.shards


def read_vectors(path: Path, rows: int, width: int) -> Float[Tensor, "N D"]:
    """Return the matrix of a file, memory-mapped. Raises `UserError` if it cannot be read or has another shape."""
    if path.exists():
        require_file(path)  # safetensors calls a file that may not be read one that does not exist
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


def verify_shard(folder: Path, shard: Shard) -> None:
    """Raise `UserError` if a file is missing or its bytes are not those that were written. Reads all of it."""
    path = folder / shard.file
    if not path.is_file():
        raise UserError(f"{path} is missing; copy it again or rebuild the index")
    checksum = sha256_of(path)
    if checksum != shard.sha256:
        raise UserError(
            f"{path} has changed since it was written (SHA-256 {checksum[:12]}…, the manifest says "
            f"{shard.sha256[:12]}…); copy it again or rebuild the index"
        )
