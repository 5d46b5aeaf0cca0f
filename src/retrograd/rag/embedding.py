"""Embed a knowledge base and build its index: the passage tower reads the base block by block.

With a `VectorCache` what was embedded before is taken from there. The bytes are those that would be computed: an entry
belongs to the texts as they are worded, the tower, and all that decides how they are batched and multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch
import transformers
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.index.disk.build import IndexSpec, ReportProgress
from retrograd.index.disk.cache import VectorCache
from retrograd.index.disk.plan import require_memory
from retrograd.index.exact import ExactIndex
from retrograd.index.exchange import Exchange
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.index.sharded import ShardedIndex, shard_range
from retrograd.models.compute.compute import computed_type
from retrograd.models.compute.precision_cache import processor_instructions, processor_name
from retrograd.tasks.task import Task
from retrograd.util.fingerprints import fingerprint

__all__ = [
    "BLOCK_ROWS",
    "MIXED",
    "PassageEmbedder",
    "build_index",
    "build_shards",
    "cache_spec",
    "embed_block_rows",
    "embed_rows",
    "own_rows",
    "passage_fingerprint",
    "passage_texts",
    "pick_evenly",
    "shard_index",
]

MIXED = "mixed"
"""The encoder fingerprint of an index whose rows come from several states of the tower; no tower's own equals it."""

BLOCK_ROWS = 2_048
"""Rows that are embedded at once. They begin at a shard's first row, and 65,536 is a multiple: the texts that share a
batch are always the same."""
_SPREAD_ROWS = 16
_CACHE_FORMAT = 1
"""Raise it with any change to how texts become vectors that no fingerprint shows: batching, padding, pooling."""


@runtime_checkable
class PassageEmbedder(Protocol):
    """An object that embeds passages for an index: an `Encoder`, or a `PassageSide`."""

    @property
    def dimension(self) -> int:
        """D, the width of a row."""
        ...

    @property
    def device(self) -> torch.device:
        """The device on which passages are embedded."""
        ...

    @property
    def batch_tokens(self) -> tuple[int, ...]:
        """The most padded tokens of a batch, of each tower: what else is in its batch moves a vector by rounding."""
        ...

    def embed_passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return rows of texts, without gradient and without dropout."""
        ...

    def fingerprint(self) -> str:
        """Return a hash of all that decides a row except the text."""
        ...


def build_index(
    embedder: PassageEmbedder,
    task: Task,
    base: KnowledgeBase,
    dtype: torch.dtype = torch.float32,
    progress: ReportProgress | None = None,
    cache: VectorCache | None = None,
) -> ExactIndex:
    """Embed all N passages as the task words them. ``progress`` is called with the number of rows of each block.

    With a ``cache`` the vectors are those of the cache, mapped on a CPU; what it lacks is embedded and kept.
    Raises `UserError` before it starts if the vectors do not fit in memory; see `retrograd.rag.index_folder` then.
    """
    fingerprints = base.fingerprint, passage_fingerprint(embedder, task, base)
    rows = range(len(base))
    cached = None if cache is None else _fetch_rows(embedder, task, base, rows, dtype, progress, cache)
    if cached is not None:
        return cached.relabel(*fingerprints)
    if embedder.device.type == "cpu":
        require_memory(len(base) * embedder.dimension * dtype.itemsize)
    return ExactIndex.from_blocks(
        embed_block_rows(embedder, task, base, rows, progress),
        len(base),
        base_fingerprint=fingerprints[0],
        encoder_fingerprint=fingerprints[1],
        dtype=dtype,
        device=embedder.device,
    )


def build_shards(
    embedder: PassageEmbedder,
    task: Task,
    base: KnowledgeBase,
    dtype: torch.dtype = torch.float32,
    progress: ReportProgress | None = None,
    cache: VectorCache | None = None,
) -> ShardedIndex:
    """Embed all N passages over the ranks of the process group: each embeds and holds its own rows; all call it.

    Each rank has entries of its own in a ``cache``.
    """
    exchange = Exchange()
    rows = shard_range(len(base), exchange.rank, exchange.ranks)
    fingerprints = base.fingerprint, passage_fingerprint(embedder, task, base)
    if cache is not None and rows:
        cached = _fetch_rows(embedder, task, base, rows, dtype, progress, cache)
        if cached is not None:
            return ShardedIndex(cached.relabel(*fingerprints))

    def embed_blocks(rows: range) -> Iterator[Float[Tensor, "n D"]]:
        return embed_block_rows(embedder, task, base, rows, progress)

    return _build_shard(embed_blocks, (len(base), embedder.dimension), fingerprints, dtype, embedder.device)


def _fetch_rows(
    embedder: PassageEmbedder,
    task: Task,
    base: KnowledgeBase,
    rows: range,
    dtype: torch.dtype,
    progress: ReportProgress | None,
    cache: VectorCache,
) -> ExactIndex | None:
    """Return the vectors of consecutive rows from the cache; None where it cannot be used."""

    def encode(first: int, stop: int) -> Iterator[Float[Tensor, "n D"]]:
        return embed_block_rows(embedder, task, base, rows[first:stop])

    return cache.fetch(cache_spec(embedder, task, base, rows, dtype), encode, progress, embedder.device)


def cache_spec(
    embedder: PassageEmbedder, task: Task, base: KnowledgeBase, rows: range, dtype: torch.dtype
) -> IndexSpec:
    """Return what names the vectors of consecutive rows in a cache. Words and hashes all their texts.

    Threads, processor and versions of libraries count, since each changes the order in which numbers are added.
    """
    texts = (text for block in _text_blocks(task, base, rows) for text in block)
    device = embedder.device.type
    processor = f"{processor_name()} ({processor_instructions()})"
    where = torch.cuda.get_device_name(embedder.device) if device == "cuda" else processor
    encoding = (
        f"{computed_type(device)} on {where}, {torch.get_num_threads()} threads, batches of "
        f"{embedder.batch_tokens} tokens, torch {torch.__version__}, transformers "
        f"{transformers.__version__}, format {_CACHE_FORMAT}"
    )
    return IndexSpec(fingerprint(texts), embedder.fingerprint(), encoding, len(rows), embedder.dimension, dtype)


def shard_index(index: ExactIndex, device: torch.device) -> ShardedIndex:
    """Shard an index that every rank can read: each rank holds its own rows of it on ``device``; all call it."""

    def read_blocks(rows: range) -> Iterator[Float[Tensor, "n D"]]:
        for start in range(0, len(rows), BLOCK_ROWS):
            yield index.vectors(torch.tensor(rows[start : start + BLOCK_ROWS]))

    fingerprints = index.base_fingerprint, index.encoder_fingerprint
    return _build_shard(read_blocks, (len(index), index.dimension), fingerprints, index.dtype, device)


def _build_shard(
    blocks: Callable[[range], Iterable[Float[Tensor, "n D"]]],
    shape: tuple[int, int],
    fingerprints: tuple[str, str],
    dtype: torch.dtype,
    device: torch.device,
) -> ShardedIndex:
    """Build this rank's share of an index of ``shape`` [N D]; ``fingerprints`` are those of base and encoder."""
    exchange, (base, encoder) = Exchange(), fingerprints
    rows = shard_range(shape[0], exchange.rank, exchange.ranks)
    if not rows:  # fewer passages than ranks
        nothing = torch.empty(0, shape[1], dtype=dtype, device=device)
        return ShardedIndex(ExactIndex(nothing, base_fingerprint=base, encoder_fingerprint=encoder))
    own = ExactIndex.from_blocks(
        blocks(rows), len(rows), base_fingerprint=base, encoder_fingerprint=encoder, dtype=dtype, device=device
    )
    return ShardedIndex(own)


def own_rows(rows: Int[Tensor, " Z"]) -> Int[Tensor, " n"]:
    """Return this rank's share of a list of rows, whichever rank holds them in an index."""
    exchange = Exchange()
    return rows.tensor_split(exchange.ranks)[exchange.rank]


def embed_block_rows(
    embedder: PassageEmbedder, task: Task, base: KnowledgeBase, rows: range, progress: ReportProgress | None = None
) -> Iterator[Float[Tensor, "n D"]]:
    """Yield the embeddings of consecutive rows, block by block."""
    for texts in _text_blocks(task, base, rows):
        yield embedder.embed_passages(texts)
        if progress is not None:
            progress(len(texts))


def passage_texts(task: Task, base: KnowledgeBase) -> Iterator[list[str]]:
    """Yield the texts that the passage tower reads, in row order, in the blocks that `build_index` embeds."""
    return _text_blocks(task, base, range(len(base)))


def _text_blocks(task: Task, base: KnowledgeBase, rows: range) -> Iterator[list[str]]:
    for block in base.blocks(BLOCK_ROWS, rows.start, rows.stop):
        yield [task.passage_text(passage) for passage in block]


def embed_rows(embedder: PassageEmbedder, task: Task, base: KnowledgeBase, rows: Sequence[int]) -> Float[Tensor, "Z D"]:
    """Return the embeddings of some passages, without gradient and without dropout."""
    return embedder.embed_passages([task.passage_text(passage) for passage in base.passages(rows)])


def passage_fingerprint(embedder: PassageEmbedder, task: Task, base: KnowledgeBase) -> str:
    """Return a hash of what decides a stored embedding besides the base: the embedder, and the task's wording.

    The wording is that of up to 16 passages: all of them would have to be read.
    """
    wording = (task.passage_text(passage) for passage in base.passages(pick_evenly(range(len(base)))))
    return fingerprint([embedder.fingerprint(), *wording])


def pick_evenly(rows: Sequence[int]) -> list[int]:
    """Return up to 16 of the rows, evenly spaced, the first and the last among them."""
    count = min(_SPREAD_ROWS, len(rows))
    return [rows[i * (len(rows) - 1) // max(1, count - 1)] for i in range(count)]
