"""What a run gives up that searches with an approximate engine: the same training on each, over the same questions.

    OMP_NUM_THREADS=1 python benchmarks/engines.py FOLDER SCRATCH --engines exact faiss:ivf milvus:ivf

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl``. The query tower of the built-in retriever learns by
RAG's marginal on the copy likelihood, 20 candidates of each question, one visit of ``--questions`` of them; the passage
tower rests, and all runs share its embeddings. Each engine is run with the normaliser of the whole base, exact or
estimated, and with that of the candidates. One seed; SCRATCH gets the runs, and a finished one is not run again.

* recall@1, @5: of the trained tower, over the exact index, on the test questions: the passage that the question is of;
* log-marginal: of the test questions' answers, by the exact search and log Z;
* cosine, squared error: of the gradient of the untrained tower over 64 questions, against that of the exact index with
  the normaliser of the whole base, in the mean of three draws;
* error: the standard error of log Z that the last step states, in nats.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import cast

import torch
from jaxtyping import Float
from rich.console import Console
from rich.table import Table
from torch import Tensor

from retrograd.evaluation.open_retrieval import open_retrieval_scores
from retrograd.experiments.build import build_model
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.experiments.stages import build_stages
from retrograd.index.protocol import Index, has_estimated_log_z
from retrograd.rag.rag_model import RagModel
from retrograd.recipes import recipe
from retrograd.training.gradients import add_gradients
from retrograd.training.stage import Stage
from retrograd.types import Example
from retrograd.util.text_files import read_jsonl, write_jsonl

_GRADIENT_QUESTIONS, _DRAWS = 64, 3


def main() -> None:
    """Train on each engine and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--engines", nargs="+", default=["exact", "faiss:ivf", "milvus:ivf"])
    parser.add_argument("--questions", type=int, default=3_200)
    parser.add_argument("--set", dest="changes", action="append", default=[], help="more settings of the experiment")
    arguments = parser.parse_args()
    common = write_experiment(arguments.data.resolve(), arguments.scratch.resolve(), arguments.questions)
    common = common.with_settings(arguments.changes)
    data = common.data.load(common.seed)
    table, console = Table(box=None, pad_edge=False), Console(width=140)
    for heading in (
        "index",
        "recall",
        "log Z",
        "recall@1",
        "recall@5",
        "log-marginal",
        "cosine",
        "squared error",
        "error",
    ):
        table.add_column(heading)
    exact, index = None, untrained(common, data)[0].index
    for engine in arguments.engines:
        kind, _, preset = engine.partition(":")
        for normaliser in ("full", "candidates"):
            changes = [f"index.kind={kind}", f"objective.normaliser={normaliser}"]
            experiment = common.with_settings([*changes, *([f"index.preset={preset}"] if preset else [])])
            place = arguments.scratch / f"{kind}-{preset or 'all'}-{normaliser}"
            if not place.exists():
                run_experiment(experiment.with_settings(["data.test="]), place)
            gradients, recall = measure_gradients(experiment, data)
            exact = gradients[0] if exact is None else exact
            cosine = mean(float(torch.cosine_similarity(one, exact, dim=0)) for one in gradients)
            squared = mean(float((one - exact).square().sum() / exact.square().sum()) for one in gradients)
            scores = score(common, place, data, index)
            last = [cast("dict[str, float]", line) for _, line in read_jsonl(place / "metrics.jsonl")][-1]
            error = f"{last['log_z_error']:.3f}" if "log_z_error" in last else "–"
            values = [f"{value:.1f}" for value in scores[:2]] + [f"{scores[2]:.3f}"]
            table.add_row(engine, f"{recall:.3f}", normaliser, *values, f"{cosine:.4f}", f"{squared:.1e}", error)
            console.print(table)


def write_experiment(data: Path, scratch: Path, questions: int) -> Experiment:
    """Write the questions that are trained on, at equal distances, and return the experiment without an engine."""
    lines = [line for _, line in read_jsonl(data / "train.jsonl")]
    taken = [lines[i * len(lines) // questions] for i in range(questions)] if questions < len(lines) else lines
    scratch.mkdir(parents=True, exist_ok=True)
    write_jsonl(scratch / "train.jsonl", taken)
    settings = [
        f"data.base={data / 'passages.jsonl'}",
        f"data.train={scratch / 'train.jsonl'}",
        f"data.test={data / 'test.jsonl'}",
        "data.dev=",
        "retriever.separate_towers=true",
        "retriever.trained=query",
        "retriever.posterior=false",
        "retriever.lexical_dimensions=0",
        "objective.kind=TopKMarginal",
        "warm_start.epochs=1",
        "warm_start.passages=20",
        "training.epochs=0",
        "training.normaliser_recall=0",
        "second_stage.epochs=0",
        "evaluation.passages=1",
    ]
    return recipe("jsa-rag-small-questions").with_settings(settings)


def measure_gradients(experiment: Experiment, data: Data) -> tuple[list[Float[Tensor, " P"]], float]:
    """Return the gradient of the untrained query tower over some questions, for several draws; and the recall."""
    model, stage = untrained(experiment, data)
    gradients = []
    for draw in range(_DRAWS):
        model.zero_grad()
        rng = torch.Generator().manual_seed(draw)
        for batch in batches(data.train[:_GRADIENT_QUESTIONS]):
            add_gradients(model, stage, batch, len(batch) / _GRADIENT_QUESTIONS, rng)
        weights = [weight.grad for weight in model.parts()["prior"] if weight.grad is not None]
        gradients.append(torch.cat([weight.flatten().double() for weight in weights]))
    return gradients, model.index.recall if has_estimated_log_z(model.index) else 1.0


def untrained(experiment: Experiment, data: Data) -> tuple[RagModel, Stage]:
    """Return the model and the one stage of an experiment, in its untrained state."""
    rng = torch.Generator().manual_seed(0)
    model = build_model(experiment, data, rng)
    model.refresh_index()
    return model.eval(), build_stages(experiment, model, rng)[0]


def score(common: Experiment, place: Path, data: Data, index: Index) -> tuple[float, float, float]:
    """Return recall@1 and @5 of a trained tower, and the log-marginal, over the exact ``index``."""
    model = open_run(place).model
    model.use_index(index)
    stage = build_stages(common.with_settings(["objective.normaliser=full"]), model, torch.Generator())[0]
    stage = replace(stage, evidence=replace(stage.evidence, passages=100))
    recall = open_retrieval_scores(model, data.test).scores
    marginal = 0.0
    with torch.no_grad():
        for batch in batches(data.test):
            _, estimate = add_gradients(model, stage, batch, 1.0, torch.Generator())
            marginal += float(estimate.diagnostics["log_marginal"]) * len(batch) / len(data.test)
    return recall["gold_recall@1"], recall["gold_recall@5"], marginal


def batches(examples: list[Example]) -> list[list[Example]]:
    """Return the examples in batches."""
    return [examples[first : first + 32] for first in range(0, len(examples), 32)]


if __name__ == "__main__":
    main()
