"""What exactness costs: the exact index, and faiss, in units of the bare product ``query @ vectors.T``.

    python benchmarks/index.py --rows 200000 --width 384 --queries 32 -k 10

All times are taken in one process, in turns, and printed as ratios: they travel between machines better than seconds.
The ratio of medians is what a user sees; on a busy machine that of minima says more. Memory is the
growth of the peak resident set beyond the vectors, each search in a fresh process, at N and 2N.
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

from retrograd.corpus.exact_index import ExactIndex
from retrograd.corpus.faiss_index import FaissIndex

NAMES = {"base_fingerprint": "benchmark", "encoder_fingerprint": "benchmark"}
MEGABYTE = 2**20


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    print(
        f"{options.rows:,} x {options.width} vectors, batches of {options.queries}, k = {options.k}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, {options.repeats} repeats\n"
    )
    report_times(measured(searches(options), options.repeats))
    report_memory(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
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
    exact = ExactIndex(vectors, **NAMES)
    half = ExactIndex(vectors, dtype=torch.bfloat16, **NAMES)
    exclude = torch.arange(options.queries)[:, None]
    learning = query.clone().requires_grad_()
    rng = torch.Generator().manual_seed(1)

    def step(index: ExactIndex) -> None:
        index.search(learning, options.k, exclude).log_normaliser.sum().backward()

    def dense_step() -> None:
        logits = learning @ vectors.T
        logits.topk(options.k)
        logits.logsumexp(1).sum().backward()

    found: dict[str, Callable[[], object]] = {
        "product": lambda: query @ vectors.T,
        "product + topk": lambda: (query @ vectors.T).topk(options.k),
        "product + topk + logsumexp, backward": dense_step,
        "exact fp32": lambda: exact.search(query, options.k, exclude),
        "exact fp32, gradient": lambda: step(exact),
        "exact bf16": lambda: half.search(query, options.k, exclude),
        "exact bf16, gradient": lambda: step(half),
        f"exact fp32, {options.draws} samples": lambda: exact.sample(query, options.draws, rng, exclude),
    }
    if not options.no_faiss:
        flat = FaissIndex(vectors, "Flat", queries=query, **NAMES)
        found["faiss Flat"] = lambda: flat.search(query, options.k, exclude)
    return found


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
    print(f"{'':40}{'/ product':>22}{'/ (product + topk)':>22}")
    print(f"{'':40}" + f"{'median':>12}{'minimum':>10}" * 2)
    for name, values in seconds.items():
        ratios = [
            summary(values) / summary(seconds[unit])
            for unit in ("product", "product + topk")
            for summary in (median, min)
        ]
        print(f"{name:40}" + "{:12.2f}{:10.2f}{:12.2f}{:10.2f}".format(*ratios))


def report_memory(options: argparse.Namespace) -> None:
    """Peak beyond the vectors, MB: dense grows with N, streaming does not."""
    print(f"\n{'peak memory beyond the vectors, MB':40}{'N':>12}{'2 N':>10}")
    context = multiprocessing.get_context("spawn")
    for name in ("dense", "exact fp32", "exact bf16"):
        peaks = []
        for rows in (options.rows, 2 * options.rows):
            with context.Pool(1) as pool:
                peaks.append(pool.apply(extra_memory, (name, rows, options.width, options.queries, options.k)))
        print(f"{name:40}{peaks[0]:12.0f}{peaks[1]:10.0f}")


def extra_memory(name: str, rows: int, width: int, queries: int, k: int) -> float:
    vectors, query = world(rows, width, queries)
    dtype = torch.bfloat16 if name == "exact bf16" else torch.float32
    index = ExactIndex(vectors, dtype=dtype, **NAMES)
    _ = query[:1] @ index.vectors(torch.arange(1000)).T  # the libraries' own work space is not the search's
    query.requires_grad_()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak (Linux)
    before = resident("VmRSS")
    if name == "dense":
        logits = query @ vectors.T
        logits.topk(k)
        logits.logsumexp(1).sum().backward()
    else:
        index.search(query, k).log_normaliser.sum().backward()
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
