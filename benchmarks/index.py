"""What exactness costs: the exact index, and faiss, in units of the bare blocked product.

    python benchmarks/index.py --rows 1000000 --width 384 --queries 32 -k 20 --storage fp32 bf16

The unit is the product ``query @ block.T`` of every block of rows, in fp32, into one buffer: the least that any exact
search does. All times are taken in one process, in turns, and printed as ratios: they travel between machines better
than seconds. The ratio of medians is what a user sees; on a busy machine that of minima says more. Memory is the growth
of the peak resident set beyond the vectors, each search in a fresh process, at N and 2N.

Stored in bf16, top-K alone may take its candidates by a bf16 product and rescore them in fp32: forced, forbidden, and
as the index itself chooses after a probe. Its rows are compared with those of the fp32 product over the same vectors,
and with those of fp32 storage. faiss runs twice: as shipped, and with the batch size above which it calls BLAS at 20.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch

from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex

NAMES = {"base_fingerprint": "benchmark", "encoder_fingerprint": "benchmark"}
MEGABYTE = 2**20
STORAGE = {"fp32": torch.float32, "bf16": torch.bfloat16}
UNIT, UNIT_ROWS = "blocked product (the unit)", 65_536
MEMORY = ("dense, with gradient", "exact, top-K alone", "exact, top-K + log Z + gradient")


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    print(
        f"{options.rows:,} x {options.width} vectors, batches of {options.queries}, k = {options.k}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.repeats} repeats\n"
    )
    report_times(measured(searches(options), options.repeats))
    for storage in options.storage:
        report_memory(options, storage)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--storage", nargs="+", choices=tuple(STORAGE), default=["fp32"])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--queries", type=int, default=32)
    parser.add_argument("-k", type=int, default=10)
    parser.add_argument("--draws", type=int, default=50)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=0, help="0 keeps torch's choice")
    parser.add_argument("--no-faiss", action="store_true")
    return parser.parse_args()


def world(rows: int, width: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit vectors, and queries near some of them at temperature 0.05."""
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(rows, width, generator=rng)
    vectors /= vectors.norm(dim=1, keepdim=True)
    query = vectors[:queries] + 0.03 * torch.randn(queries, width, generator=rng)
    return vectors, 20 * query / query.norm(dim=1, keepdim=True)


def searches(options: argparse.Namespace) -> dict[str, Callable[[], object]]:
    vectors, query = world(options.rows, options.width, options.queries)
    exclude = torch.arange(options.queries)[:, None]
    k = options.k
    found: dict[str, Callable[[], object]] = {
        UNIT: blocked_product(vectors, query),
        "whole product": lambda: query @ vectors.T,
        "whole product + topk": lambda: (query @ vectors.T).topk(k),
    }
    indexes = {name: ExactIndex(vectors, dtype=STORAGE[name], **NAMES) for name in options.storage}
    for name, index in indexes.items():
        found |= exact_searches(f"exact {name}", index, query, exclude, options)
    if "bf16" in indexes:
        report_rows(indexes["bf16"], indexes.get("fp32"), query, exclude, k)
    if not options.no_faiss:
        found |= faiss_searches(FaissIndex(vectors, "Flat", queries=query, **NAMES), query, k, exclude)
    return found


def exact_searches(
    name: str, index: ExactIndex, query: torch.Tensor, exclude: torch.Tensor, options: argparse.Namespace
) -> dict[str, Callable[[], object]]:
    k, draws = options.k, options.draws
    learning = query.clone().requires_grad_()
    rng = torch.Generator().manual_seed(1)
    found: dict[str, Callable[[], object]] = {
        f"{name}: top-K alone": lambda: index.top_k(query, k, exclude, bf16_product=False),
        f"{name}: top-K + log Z": lambda: index.search(query, k, exclude),
        f"{name}: top-K + log Z + gradient": lambda: index.search(learning, k, exclude).log_normaliser.sum().backward(),
        f"{name}: {draws} samples": lambda: index.sample(query, draws, rng, exclude),
    }
    if index.dtype == torch.bfloat16:
        found[f"{name}: top-K alone, bf16 and rescored"] = lambda: index.top_k(query, k, exclude, bf16_product=True)
        found[f"{name}: top-K alone, its own choice"] = lambda: index.top_k(query, k, exclude)
    return found


def report_rows(index: ExactIndex, full: ExactIndex | None, query: torch.Tensor, exclude: torch.Tensor, k: int) -> None:
    """Whether rescoring gives the rows of the fp32 product, what fp32 storage finds, and what the index chooses."""
    rescored = index.top_k(query, k, exclude, bf16_product=True).row
    product = index.top_k(query, k, exclude, bf16_product=False).row
    other = int((rescored != product).any(dim=1).sum())
    same = "the same rows for every query" if other == 0 else f"OTHER ROWS for {other} queries (equal logits?)"
    print(f"bf16 storage, bf16 product and rescoring against its fp32 product: {same}")
    if full is not None:
        exact = full.top_k(query, k, exclude).row
        shared = (exact[:, :, None] == product[:, None, :]).any(dim=2).double().mean()
        print(f"bf16 storage against fp32 storage: {float(shared):.1%} of the top {k} in common")
    chosen = "bf16 and rescored" if index.prefers_bf16_product(query, k) else "fp32"
    print(f"bf16 storage, own choice of product: {chosen}\n")


def blocked_product(vectors: torch.Tensor, query: torch.Tensor) -> Callable[[], object]:
    buffer = query.new_empty(len(query) * UNIT_ROWS)

    def product() -> None:
        for block in vectors.split(UNIT_ROWS):
            torch.mm(query, block.T, out=buffer[: len(query) * len(block)].view(len(query), len(block)))

    return product


def faiss_searches(
    flat: FaissIndex, query: torch.Tensor, k: int, exclude: torch.Tensor
) -> dict[str, Callable[[], object]]:
    import faiss

    shipped = faiss.cvar.distance_compute_blas_threshold

    def search(threshold: int) -> None:
        faiss.cvar.distance_compute_blas_threshold = threshold
        flat.search(query, k, exclude)
        faiss.cvar.distance_compute_blas_threshold = shipped

    return {
        f"faiss Flat: top-K alone, as shipped ({shipped})": lambda: search(shipped),
        "faiss Flat: top-K alone, threshold 20": lambda: search(20),
    }


def measured(actions: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Seconds of each action; they take turns, so that a slow moment of the machine meets all of them."""
    for action in actions.values():
        action()
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, action in actions.items():
            start = time.perf_counter()
            action()
            seconds[name].append(time.perf_counter() - start)
    return seconds


def report_times(seconds: dict[str, list[float]]) -> None:
    unit = seconds[UNIT]
    print(f"{'':48}{'/ blocked product':>22}{'ms':>10}")
    print(f"{'':48}{'median':>12}{'minimum':>10}{'median':>10}")
    for name, values in seconds.items():
        ratios = [summary(values) / summary(unit) for summary in (median, min)]
        print(f"{name:48}{ratios[0]:12.2f}{ratios[1]:10.2f}{1000 * median(values):10.1f}")


def report_memory(options: argparse.Namespace, storage: str) -> None:
    """Peak beyond the vectors, MB: dense grows with N, streaming does not."""
    print(f"\n{f'peak memory beyond the vectors ({storage}), MB':48}{'N':>12}{'2 N':>10}")
    context = multiprocessing.get_context("spawn")
    for name in MEMORY:
        peaks = []
        for rows in (options.rows, 2 * options.rows):
            with context.Pool(1) as pool:
                peaks.append(pool.apply(extra_memory, (name, rows, storage, options)))
        print(f"{name:48}{peaks[0]:12.0f}{peaks[1]:10.0f}")


def extra_memory(name: str, rows: int, storage: str, options: argparse.Namespace) -> float:
    vectors, query = world(rows, options.width, options.queries)
    index = ExactIndex(vectors, dtype=STORAGE[storage], **NAMES)
    _ = query[:1] @ index.vectors(torch.arange(1000)).T  # the libraries' own work space is not the search's
    if name == "exact, top-K alone":
        index.top_k(query[:1], options.k)  # nor is what it measures once
    query.requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    before = resident("VmRSS")
    if name == "dense, with gradient":
        logits = query @ vectors.T
        logits.topk(options.k)
        logits.logsumexp(1).sum().backward()
    elif name == "exact, top-K alone":
        index.top_k(query, options.k)
    else:
        index.search(query, options.k).log_normaliser.sum().backward()
    return (resident("VmHWM") - before) / MEGABYTE


def resident(field: str) -> int:
    """Bytes: VmRSS is the resident set, VmHWM its peak."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = next(line for line in status.read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
