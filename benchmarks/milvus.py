"""Milvus beside exact search and faiss over the same vectors: seconds to load, seconds to search, recall, memory.

    OMP_NUM_THREADS=1 python benchmarks/milvus.py SCRATCH --rows 1000000

SCRATCH, a folder, gets an exact index of so many vectors of length 1 in clusters, as embeddings of texts lie, which
every engine is given mapped; then a folder of faiss and a file of Milvus, or, with ``--address``, collections on a
server. Queries are vectors of the base with noise. Each engine is a process of its own, so that the memory is its own:
``RssAnon``, which no file stands behind. Recall is at 10, against the exact index; seconds of search are those of a
batch of 32 queries for 20 rows, the median over batches.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from retrograd.index.approximate import share_found
from retrograd.index.disk.storage import Manifest, write_index
from retrograd.index.exact import ExactIndex
from retrograd.index.kinds import find_kind
from retrograd.index.settings import EngineName, IndexSettings, PresetName

_CENTRES, _NOISE, _QUERIES, _BATCH = 4_096, 0.7, 960, 32


def main() -> None:
    """Write the vectors, run each engine in a process of its own, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dimension", type=int, default=384)
    parser.add_argument("--presets", nargs="+", default=["ivf"])
    parser.add_argument("--address", help="a server of Milvus; default: a file in SCRATCH")
    parser.add_argument("--engine", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.engine:
        kind, preset = arguments.engine
        print(json.dumps(measure(arguments.scratch, kind, preset, arguments.address)))
        return
    write_vectors(arguments.scratch / "exact", arguments.rows, arguments.dimension)
    table, console = Table(box=None, pad_edge=False), Console(width=140)
    for heading in ("engine", "load s", "rows/s", "search s / 32", "of exact", "recall@10", "RssAnon MB"):
        table.add_column(heading)
    exact_seconds = 0.0
    for kind, preset in [("exact", "flat"), *((kind, p) for p in arguments.presets for kind in ("faiss", "milvus"))]:
        words = [sys.executable, __file__, str(arguments.scratch), "--engine", kind, preset]
        words += ["--address", arguments.address] if arguments.address else []
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.strip().splitlines()[-1])
        exact_seconds, load = exact_seconds or found["search"], found["load"]
        table.add_row(
            kind if kind == "exact" else f"{kind} {preset}",
            *(["–", "–"] if kind == "exact" else [f"{load:.1f}", f"{arguments.rows / load:,.0f}"]),
            f"{found['search']:.4f}",
            f"{found['search'] / exact_seconds:.2f}",
            f"{found['recall']:.3f}",
            f"{found['memory']:,}",
        )
        console.print(table)


def write_vectors(folder: Path, rows: int, dimension: int) -> None:
    """Write the vectors into an exact index in bf16, block by block."""
    if folder.exists():
        return
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(_CENTRES, dimension, generator=rng)

    def blocks() -> Iterator[Float[Tensor, "n D"]]:
        for first in range(0, rows, 16_384):
            count = min(16_384, rows - first)
            noise = _NOISE * torch.randn(count, dimension, generator=rng)
            yield torch.nn.functional.normalize(
                centres[torch.randint(_CENTRES, (count,), generator=rng)] + noise, dim=1
            )

    write_index(folder, blocks(), Manifest("exact", "base", "encoder", "BF16", rows, dimension))


def measure(scratch: Path, kind: EngineName, preset: PresetName, address: str | None) -> dict[str, float]:
    """Publish the exact index to an engine and search there."""
    exact = ExactIndex.load(scratch / "exact")
    rng = torch.Generator().manual_seed(1)
    rows = torch.randint(len(exact), (_QUERIES,), generator=rng)
    query = exact.vectors(rows) + 0.03 * torch.randn(_QUERIES, exact.dimension, generator=rng)
    truth = exact.search(query, 10).row
    where = {"exact": "", "faiss": str(scratch / f"faiss-{preset}"), "milvus": address or str(scratch / f"{preset}.db")}
    settings = IndexSettings(kind, path=where[kind], preset=preset)
    if kind == "milvus":
        settings = replace(settings, collection=f"benchmark_{preset.replace('-', '_')}")
    start = time.perf_counter()
    index = exact if kind == "exact" else find_kind(kind).publish(exact, settings, None)
    load = time.perf_counter() - start
    seconds, retrieved = [], []
    for batch in query.split(_BATCH):
        start = time.perf_counter()
        retrieved.append(index.search(batch, 20).row[:, :10])
        seconds.append(time.perf_counter() - start)
    recall = share_found(truth, torch.cat(retrieved))
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    memory = next(int(line.split()[1]) // 1024 for line in lines if line.startswith("RssAnon:"))
    return {"load": load, "search": median(seconds), "recall": recall, "memory": memory}


if __name__ == "__main__":
    main()
