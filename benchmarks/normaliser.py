"""How good an estimated log Z is: its laws, its intervals where a heavy row is missed, and what faiss makes of it.

    python benchmarks/normaliser.py

Three tables, each against the exact log Z:

1. *Laws.* 20,000 replicates of one query for each number of draws m: the z-score of the mean of Ẑ (unbiased: about 1 in
   size), its variance and the bias of log Ẑ in units of what theory predicts (about 1), and the mean stated bias.
2. *Missed heavy rows.* Logits are normal with standard deviation 2, the m best rows are known, and one row that holds
   a given share of Z is hidden from the search: the share of replicates whose interval of 95 % holds log Z, as N/m
   grows. A draw meets the hidden row with probability m/N at most.
3. *faiss.* Queries near the rows of a clustered base, an IVF index of few to many probes: its measured recall, the
   recall of the best row, the coverage of the intervals, the errors that they state and those that they have.
"""

from __future__ import annotations

import argparse
import math

import torch

from retrograd.index.estimated import LogNormaliserEstimate, estimate_log_normaliser
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex

NAMES = {"base_fingerprint": "benchmark", "encoder_fingerprint": "benchmark"}
QUANTILE = 1.96
SPREAD = 2.0
"""Standard deviation of logits in nats: that of cosines of unrelated texts, 0.1, at a temperature of 0.05."""


def main() -> None:
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    report_laws(options)
    report_missed_rows(options)
    if not options.no_faiss:
        report_faiss(options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replicates", type=int, default=20_000, help="of each row of the first table")
    parser.add_argument("--draws", type=int, default=512, help="m of the second and third table")
    parser.add_argument("--times", type=int, default=2_000, help="replicates of each cell of the second table")
    parser.add_argument("--ratios", type=int, nargs="+", default=[10, 30, 100, 300, 1_000, 3_000, 10_000])
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.01, 0.03, 0.1, 0.5])
    parser.add_argument("--rows", type=int, default=200_000, help="of the third table")
    parser.add_argument("--queries", type=int, default=1_000, help="of the third table")
    parser.add_argument("--threads", type=int, default=0, help="0 keeps torch's choice")
    parser.add_argument("--no-faiss", action="store_true")
    return parser.parse_args()


def index_of(logits: torch.Tensor) -> ExactIndex:
    """Return an index whose rows are logits: the query 1 has them as they are."""
    return ExactIndex(logits.unsqueeze(-1), **NAMES, dtype=logits.dtype)


def replicate(index: ExactIndex, known: torch.Tensor, draws: int, times: int, seed: int) -> LogNormaliserEstimate:
    query = torch.ones(times, 1, dtype=index.dtype)
    rng = torch.Generator().manual_seed(seed)
    return estimate_log_normaliser(index, query, known.expand(times, -1), draws, rng)


def report_laws(options: argparse.Namespace) -> None:
    rows, head = 20_000, 32
    logits = SPREAD * torch.randn(rows, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    known = logits.topk(head).indices
    others = logits.index_fill(0, known, -torch.inf)
    others = others[others.isfinite()].exp()
    z = logits.exp().sum()
    print(f"1. {rows:,} rows, {head} best ones known, {options.replicates:,} replicates\n")
    print("| m | z of Ẑ | Var Ẑ / law | bias of log Ẑ, nats | law | bias / law | stated / law |")
    print("|---|---|---|---|---|---|---|")
    for draws in (16, 64, 256, 1_024):
        found = replicate(index_of(logits), known, draws, options.replicates, draws)
        sample = found.value.exp()
        variance = others.var(correction=0) * len(others) ** 2 / draws
        score = (sample.mean() - z) / (variance / len(sample)).sqrt()
        law = -variance / (2 * z.square())
        # log Ẑ - (Ẑ - Z)/Z has the same mean as log Ẑ and next to none of its noise.
        bias = found.value - (sample - z) / z - z.log()
        error = bias.std() / len(sample) ** 0.5
        print(
            f"| {draws:,} | {score:+.2f} | {sample.var() / variance:.3f} | {bias.mean():.2e} ± {error:.0e} | "
            f"{law:.2e} | {bias.mean() / law:.3f} | {found.bias.mean() / law:.3f} |"
        )
    print()


def report_missed_rows(options: argparse.Namespace) -> None:
    print(f"2. m = {options.draws} draws and {options.draws} best rows, one hidden row with a share of Z:")
    print("coverage of the interval of 95 %, in percent (standard error without a hidden row, nats)\n")
    print("| N/m | " + " | ".join("none" if share == 0 else f"{share:.0%} of Z" for share in options.shares) + " |")
    print("|---" * (len(options.shares) + 1) + "|")
    for ratio in options.ratios:
        rng = torch.Generator().manual_seed(ratio)
        logits = SPREAD * torch.randn(ratio * options.draws, generator=rng, dtype=torch.float64)
        known = logits[1:].topk(options.draws).indices + 1
        cells = [coverage(logits, known, share, options) for share in options.shares]
        print(f"| {ratio:,} | " + " | ".join(cells) + " |", flush=True)
    print()


def coverage(logits: torch.Tensor, known: torch.Tensor, share: float, options: argparse.Namespace) -> str:
    """Return the coverage where row 0, which is not known, holds ``share`` of Z; 0 leaves it as it was drawn."""
    logits = logits.clone()
    if share > 0:
        logits[0] = logits[1:].logsumexp(0) + math.log(share / (1 - share))
    found = replicate(index_of(logits), known, options.draws, options.times, seed=1)
    holds = (found.value - logits.logsumexp(0)).abs() <= QUANTILE * found.standard_error
    stated = f" ({found.standard_error.mean():.3f})" if share == 0 else ""
    return f"{100 * holds.double().mean():.1f}{stated}"


def report_faiss(options: argparse.Namespace) -> None:
    vectors, query = clustered(options.rows, 64, options.queries)
    exact = ExactIndex(vectors, **NAMES)
    nearest = exact.search(query, 10)
    log_z, best = exact.log_normaliser(query), nearest.row
    print(f"3. {options.rows:,} x 64 in clusters, {options.queries:,} queries, IVF512,Flat, m = {options.draws}\n")
    print("| probe | recall@10 by own rows | by queries | best row found | coverage | stated error | true error |")
    print("|---|---|---|---|---|---|---|")
    for probe in (1, 4, 16, 32, 64, 128, 256, 512):
        index = FaissIndex(vectors, "IVF512,Flat", probe=probe, **NAMES)
        approximate = index.search(query, 10).row
        recall = (best[:, :, None] == approximate[:, None, :]).any(dim=2).double().mean()
        known = index.search(query, options.draws).row
        is_found = (known == best[:, :1]).any(dim=1).double().mean()
        found = estimate_log_normaliser(index, query, known, options.draws, torch.Generator().manual_seed(probe))
        error = (found.value - log_z).abs()
        holds = (error <= QUANTILE * found.standard_error).double().mean()
        print(
            f"| {probe} | {index.recall:.3f} | {recall:.3f} | {is_found:.3f} | {100 * holds:.1f} % | "
            f"{found.standard_error.square().mean().sqrt():.3f} | {error.square().mean().sqrt():.3f} |"
        )


def clustered(rows: int, width: int, queries: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return unit vectors around 2,000 centres, and queries half-way between two rows of one, at temperature 0.05."""
    rng = torch.Generator().manual_seed(0)
    centres = torch.randn(2_000, width, generator=rng)
    place = torch.randint(2_000, (rows,), generator=rng)
    vectors = torch.nn.functional.normalize(centres[place] + 0.8 * torch.randn(rows, width, generator=rng), dim=1)
    chosen = torch.randint(rows, (queries,), generator=rng)
    query = vectors[chosen] + 0.1 * torch.randn(queries, width, generator=rng)
    return vectors, torch.nn.functional.normalize(query, dim=1) / 0.05


if __name__ == "__main__":
    main()
