"""How far each estimator is from the exact gradient, on a world small enough to sum up: no model, no data.

    python examples/estimators.py

200 passages, one of them gold: the target is likely under it and unlikely under all others. The prior ranks it 4th or
60th; the posterior retriever has seen the target and is a noisy version of the truth. The table shows the squared error
(x 10,000, mean over queries) of each estimate of the gradient in the prior retriever's logits.
"""

from __future__ import annotations

import argparse

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from retrograd.evaluation.laboratory.measure import Estimator, Measurement, measure
from retrograd.evaluation.laboratory.tables import Tables
from retrograd.objectives import (
    FrozenRetriever,
    JointStochasticApproximation,
    ScoreFunction,
    TopKMarginal,
    Variational,
    Vimco,
    WakeSleep,
)

PASSAGES = 200
TARGET_TOKENS = 5
JSA = JointStochasticApproximation
COLD = JSA(sampler="metropolis", draws=50, chain="cold", kept_mass=1.0)

ESTIMATORS = (
    Estimator("no update", FrozenRetriever(), 10),
    Estimator("top-10, renormalised (RAG)", TopKMarginal(normaliser="candidates"), 10),
    Estimator("top-10, full normaliser", TopKMarginal(), 10),
    Estimator("union 10+10, exact, renormalised", JSA(normaliser="candidates", kept_mass=1.0), 10),
    Estimator("union 10+10, exact, full normaliser", JSA(kept_mass=1.0), 10),
    Estimator("JSA, 50 draws on the union, cold, renormalised", JSA("metropolis", 50, "cold", "candidates", 1.0), 10),
    Estimator("JSA, 50 draws over the base, cold", COLD, PASSAGES, "all"),
    Estimator("JSA, 2 draws over the base, carried", JSA("metropolis", 2, kept_mass=1.0), PASSAGES, "all"),
    Estimator("RWS, 50 draws over the base", WakeSleep(draws=50, kept_mass=1.0), PASSAGES, "all"),
    Estimator("VIMCO, 50 draws over the base", Vimco(draws=50), PASSAGES, "all"),
    Estimator("VRAG, as published", Variational("published", passages=10, kept_mass=1.0), 10),
    Estimator("ELBO on the union, full normaliser", Variational(kept_mass=1.0), 10),
    Estimator("REINFORCE, 8 draws of the prior's top 10", ScoreFunction(baseline="none"), 10),
    Estimator("RLOO, 8 draws of the prior's top 10", ScoreFunction(), 10),
)


def world(gold_rank: int, queries: int, seed: int) -> Tables:
    """Queries whose gold passage stands at ``gold_rank`` of the prior (from 1), in float64."""
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=rng, dtype=torch.float64)

    logits = (1.2 * normal(queries, PASSAGES)).sort(dim=-1, descending=True).values
    gold = gold_rank - 1
    # A wrong passage makes each target token less likely by 1.6 nats on average, not every passage by as much.
    wrong = (1.6 + 0.4 * normal(queries, PASSAGES, 1)).clamp(min=0.0)
    wrong[:, gold] = 0.0
    tokens = -(0.5 + wrong + 0.2 * normal(queries, PASSAGES, TARGET_TOKENS).abs())
    log_prior = logits.log_softmax(dim=-1)
    log_true = (log_prior + tokens.sum(dim=-1)).log_softmax(dim=-1)
    log_posterior = (0.7 * log_true + 0.9 * normal(queries, PASSAGES)).log_softmax(dim=-1)
    present = torch.ones(queries, TARGET_TOKENS, dtype=torch.bool)
    return Tables(log_prior, log_posterior, tokens, present, whole_base=True)


def squared_error(found: Measurement, tables: Tables) -> float:
    """E ‖ĝ - g‖² per query; an objective that sends the prior nothing is off by all of g."""
    share = 1.0 if found.prior is None else found.prior.error
    return share * float(tables.exact().prior.square().sum(dim=-1).mean())


def scored(found: Measurement) -> float:
    """Distinct candidates scored per query: a second forward pass, with gradient, of some of them does not count."""
    forwards, backwards = found.diagnostics["generator_forwards"], found.diagnostics["generator_backwards"]
    return max(forwards - backwards, backwards)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--redraws", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small gain nothing from threads
    worlds = {rank: world(rank, chosen.queries, chosen.seed) for rank in (4, 60)}
    table = Table(title="squared error of the prior's gradient x 10,000", title_justify="left")
    table.add_column("estimator")
    for heading in ("scored", *(f"gold at rank {rank}" for rank in worlds)):
        table.add_column(heading, justify="right")
    for estimator in ESTIMATORS:
        cells, forwards = [], 0.0
        for tables in worlds.values():
            rng = torch.Generator().manual_seed(chosen.seed)
            found = measure(estimator, tables, chosen.redraws, rng)
            cells.append(f"{1e4 * squared_error(found, tables):.0f}")
            forwards += scored(found) / len(worlds)
        table.add_row(estimator.name, f"{forwards:.1f}", *cells)
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
