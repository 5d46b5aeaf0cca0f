"""Build the index of a base in a folder of versions: state its needs, embed shard by shard, then switch to it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.disk.build import Encode, IndexSpec, build_version, count_discarded_bytes, count_remaining_rows
from retrograd.index.disk.plan import BuildPlan
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.models.compute.compute import computed_type
from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever
from retrograd.rag.embedding import BLOCK_ROWS, embed_block_rows, passage_fingerprint
from retrograd.tasks.task import Task
from retrograd.util.machine import free_disk, free_memory, peak_memory
from retrograd.util.progress import bar, say

__all__ = ["build_index_folder", "index_spec", "plan_build"]

_PROBE_PASSAGES, _WARM_UP_PASSAGES = 256, 16


def build_index_folder(retriever: Retriever, task: Task, base: KnowledgeBase, root: Path, spec: IndexSpec) -> Path:
    """Embed the base into the next version under ``root``, or continue a stopped build; return its folder.

    Its needs are printed first, then passages/s and the time left. ``spec`` is that of `index_spec`, made under the
    same autocast as this call. Raises `UserError` before it starts if the vectors do not fit on the disk or a
    block of them in memory, and as `retrograd.index.disk.build.build_version` does.
    """
    plan = plan_build(retriever, task, base, root, spec)
    plan.require_fit()
    say(str(plan))
    with bar("building the index", len(base), "passages") as advance:
        return build_version(root, spec, _block_encoder(retriever, task, base), advance)


def index_spec(
    retriever: Retriever,
    task: Task,
    base: KnowledgeBase,
    dtype: torch.dtype = torch.float32,
    source: str | None = None,
) -> IndexSpec:
    """Return the description of this base's index by this retriever; ``source`` names the run, for people."""
    return IndexSpec(
        base_fingerprint=base.fingerprint,
        encoder_fingerprint=passage_fingerprint(retriever.passage_encoder, task, base),
        encoding=_describe_encoding(retriever.passage_encoder),
        rows=len(base),
        dimension=retriever.passage_encoder.dimension,
        dtype=dtype,
        source=source,
    )


def plan_build(retriever: Retriever, task: Task, base: KnowledgeBase, root: Path, spec: IndexSpec) -> BuildPlan:
    """Return what the build will need. The rate is measured on 256 passages, evenly spaced over the base."""
    return BuildPlan(
        place=root,
        passages=spec.rows,
        remaining=count_remaining_rows(root, spec),
        dimension=spec.dimension,
        dtype=spec.dtype,
        block_rows=BLOCK_ROWS,
        seconds_per_passage=_measure_seconds_per_passage(retriever, task, base),
        resident_bytes=peak_memory(),
        free_disk=free_disk(root) + count_discarded_bytes(root, spec),
        free_memory=free_memory(),
    )


def _measure_seconds_per_passage(retriever: Retriever, task: Task, base: KnowledgeBase) -> float:
    """Return seconds per passage. A few passages are embedded before, untimed, so that caches are warm."""
    count = min(_PROBE_PASSAGES, len(base))
    texts = [task.passage_text(base[i * len(base) // count]) for i in range(count)]
    retriever.passage_encoder.embed_passages(texts[:_WARM_UP_PASSAGES])
    start = time.perf_counter()
    retriever.passage_encoder.embed_passages(texts).cpu()  # waits for a GPU, whose kernels run asynchronously
    return (time.perf_counter() - start) / count


def _block_encoder(retriever: Retriever, task: Task, base: KnowledgeBase) -> Encode:
    """Return the function that embeds the rows from ``first`` to ``stop``, block by block."""

    def encode(first: int, stop: int) -> Iterator[Float[Tensor, "n D"]]:
        return embed_block_rows(retriever.passage_encoder, task, base, range(first, stop))

    return encode


def _describe_encoding(encoder: Encoder) -> str:
    """Return how passages are encoded, in words. A stopped build continues only where these words are equal."""
    computed = computed_type(encoder.device.type)
    length = "length 1" if encoder.normalise else "length as it comes"
    lexical = "" if encoder.lexical is None else f", behind them {encoder.lexical.dimension} numbers for words"
    return f"{encoder.pooling} pooling, {length}, at most {encoder.max_tokens} tokens, encoded in {computed}{lexical}"
