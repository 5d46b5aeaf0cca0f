"""Refresh policies side by side: what each costs, how stale its index is, and what the model scores in the end.

    python benchmarks/refresh.py --train 256 --test 200 2>/dev/null

One small model on SemEval-2010 Task 8 is trained anew for each policy: the quickstart's data and models, the same seed,
the same steps, warm start and joint training both under the policy. Seconds are those of training, with the embedding
of the base that every stage begins or ends with, and with measuring staleness: both are the same for all. Rows embedded
are the policy's own, in whatever process; a snapshot counts whole. Drift and overlap are means over the logged steps,
which fall on indexes of every age (stderr shows them). A few points between scores are chance: --seed shows others.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean

import torch

from retrograd.experiments.build import build_model
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import compute_for, evaluate_experiment
from retrograd.experiments.stages import build_stages
from retrograd.recipes.quickstart import semeval_joint
from retrograd.training.loop import train
from retrograd.training.refresh.policies import (
    EverySteps,
    InBackground,
    Never,
    RefreshPolicy,
    RetrievedLately,
    Rolling,
    WhenDrifted,
)
from retrograd.training.run.run_directory import RunDirectory

EVERY, LOG_EVERY = 5, 3  # without a common factor: an index is measured at every age
POLICIES: tuple[RefreshPolicy, ...] = (
    Never(),
    EverySteps(EVERY),
    WhenDrifted(0.05, EVERY // 2),
    Rolling(1 / EVERY),
    RetrievedLately(EVERY, EVERY),
    InBackground(EVERY),
)


@dataclass(frozen=True)
class Row:
    """A line of the table: seconds, rows, mean 1 - cosine, mean share of agreeing neighbours, two scores in percent."""

    seconds: float
    embedded: int
    drift: float
    overlap: float
    match: float
    macro_f1: float


def main() -> None:
    """Train under each policy and print."""
    options = parse()
    torch.set_num_threads(options.threads or torch.get_num_threads())
    experiment = small(options)
    data = experiment.data.load(experiment.seed)
    print(
        f"{len(data.base)} passages, {len(data.test)} test sentences, seed {experiment.seed}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}\n"
    )
    print(f"{'policy':43}{'seconds':>9}{'embedded':>10}{'drift':>9}{'overlap':>9}{'match@1':>9}{'macro-F1':>10}")
    for policy in POLICIES:
        with tempfile.TemporaryDirectory() as folder:
            row = measured(experiment, data, policy, Path(folder) / "run")
        print(
            f"{policy!s:43}{row.seconds:9.1f}{row.embedded:10}{row.drift:9.4f}{row.overlap:9.3f}"
            f"{row.match:9.1f}{row.macro_f1:10.1f}",
            flush=True,
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=int, default=256, help="training sentences, which are the passages as well")
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=0, help="0 keeps torch's choice")
    return parser.parse_args()


def small(options: argparse.Namespace) -> Experiment:
    """The quickstart's joint recipe on fewer sentences, with passages that move as fast in both stages."""
    joint = semeval_joint()
    return replace(
        joint,
        seed=options.seed,
        data=replace(joint.data, train_count=options.train, test_count=options.test),
        training=replace(
            joint.training, passages=3, retriever_learning_rate=1e-4, log_every=LOG_EVERY, probe_passages=32
        ),
    )


def measured(experiment: Experiment, data: Data, policy: RefreshPolicy, folder: Path) -> Row:
    """One training from the beginning, and its evaluation."""
    compute = compute_for(experiment)
    torch.manual_seed(experiment.seed)
    rng = torch.Generator().manual_seed(experiment.seed)
    model = build_model(experiment, data, rng, compute.precision).to(compute.device)
    run = RunDirectory.create(folder, experiment.to_toml(), compute.precision)
    began = time.perf_counter()
    for stage in build_stages(experiment, model, rng):
        train(model, data.train, replace(stage, refresh=policy), run, rng)
    seconds = time.perf_counter() - began
    found = evaluate_experiment(experiment, model, data.test)
    log = list(logged(folder / "metrics.jsonl"))
    embedded = {line["stage"]: int(line["index_embedded"]) for line in log}  # a count, so the last of a stage
    return Row(
        seconds,
        sum(embedded.values()),
        mean(line["staleness_drift"] for line in log),
        mean(line["staleness_overlap"] for line in log),
        found.neighbours["precision@1"],
        found.answers["macro_f1"],
    )


def logged(path: Path) -> Iterator[dict]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if "alarm" not in (found := json.loads(line)):
            yield found


if __name__ == "__main__":
    main()
