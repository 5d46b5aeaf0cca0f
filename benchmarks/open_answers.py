"""Questions and dialogues on built-in models: closed book, frozen, RAG, VRAG, JSA; several seeds, paired tests.

    OMP_NUM_THREADS=1 python benchmarks/open_answers.py questions FOLDER --seeds 0 1
    python benchmarks/open_answers.py questions FOLDER --table

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl`` (`docs/questions.md`). Each row differs from the
recipe ``jsa-rag-small-questions`` or ``jsa-rag-small-dialogue`` in `SMALLER`, in ``--set`` and in its own settings of
`ROWS`; temperature and steps are equal, and so is what a retriever brings: four passages of the prior, and where there
is a posterior four of its own beside them. All rows of all seeds begin with one generator, which has learnt to read
what an untrained retriever finds (`READER`); for dialogues, retrievers that are trained begin with one warm start
(`WARM`), which is a row of its own. Recall is over all test examples, answers and log-marginal over the first
``--answered`` of them. Finished rows stay in ``--out`` and are not run again. Seeds differ in the order of the examples
and in what is drawn in training, not in the examples nor in what they begin with.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shutil import rmtree
from statistics import mean
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from rows import begun

from retrograd.evaluation.evaluate import predict
from retrograd.evaluation.evidence import difference, format_spread
from retrograd.evaluation.open_retrieval import best_rows
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import train_experiment
from retrograd.metrics.resampling import item_scores
from retrograd.metrics.significance import Statistic
from retrograd.models.compute.inference import inference
from retrograd.objectives import TopKMarginal
from retrograd.rag.rag_model import RagModel
from retrograd.recipes import RECIPES
from retrograd.tasks.relevance import gold_rows, rows_by_id
from retrograd.types import Example, UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.text_files import read_json, read_jsonl, write_json

Result = dict[str, Any]
"""What `measure` writes."""

SMALLER = ["data.train_count=240", "data.seed=0", "data.dev=", "data.dev_count=0", "second_stage.epochs=0"]
SMALLER += ["warm_start.epochs=0", "training.epochs=3", "training.generator_learning_rate=5e-5"]
SMALLER += ["retriever.lexical_weight=0.0", "training.scale_learning_rate=0.1", "generator.max_input_tokens=320"]
"""What keeps a row small enough for two cores. The examples are the same for all seeds, and visited three times, so
that chains are carried; at the recipe's rate the generator would know them by heart. Retrievers begin without words, as
the frozen encoder (of dialogues: as after `WARM`), and learn in 45 steps what words are worth; hence the rate of the
scale."""

ALONE = ["retriever.trained=none", "retriever.posterior=false"]
FROZEN = ["objective.kind=FrozenRetriever", *ALONE]
READER = [*FROZEN, "retriever.lexical_weight=1.0", "training.passages=1", "training.epochs=1", "data.train_count=0"]
READER += ["training.generator_learning_rate=2e-4"]
"""One visit of all training examples, with the one passage that the untrained hybrid search finds: it is more often the
right one than the encoder's, and needs no label either."""
WARM = ["objective.kind=TopKMarginal", "retriever.posterior=false", "retriever.lexical_weight=0.5"]
WARM += ["data.train_count=0", "warm_start.epochs=1", "training.epochs=0", "training.scale_learning_rate=0.02"]
"""The query tower and the weight of words on word overlap alone, one visit of all turns (`docs/questions.md`). On
questions this stage teaches the weight and nothing else, which is then left to the rows. A posterior's query tower
begins with the same, which was never shown a target."""

EIGHT = ["training.passages=8", "evaluation.passages=4"]
"""As many candidates as the union of prior and posterior has at most; read like all others."""
JSA = "objective.kind=JointStochasticApproximation"
_WARM_ALONE = "warm start alone"
ROWS: dict[str, list[str]] = {
    "closed book": ["objective.kind=NoRetrieval", "training.passages=0", *ALONE],
    "frozen retriever": FROZEN,
    _WARM_ALONE: FROZEN,
    "frozen retriever, hybrid": [*FROZEN, "retriever.lexical_weight=1.0"],
    "BM25": [*FROZEN, "retriever.search=bm25", "retriever.lexical_dimensions=0"],
    "RAG": ["objective.kind=TopKMarginal", "retriever.posterior=false"],
    "RAG, 8 passages": ["objective.kind=TopKMarginal", "retriever.posterior=false", *EIGHT],
    "VRAG": ["objective.kind=Variational", "objective.form=published"],
    "JSA, Metropolis, 2 carried": [JSA, "objective.sampler=metropolis", "objective.draws=2", "objective.chain=carried"],
    "JSA, Metropolis, 50 cold": [JSA, "objective.sampler=metropolis", "objective.draws=50", "objective.chain=cold"],
    "JSA, exact union": [JSA],
}
_TRAINED = [row for row, changes in ROWS.items() if ALONE[0] not in changes]
COMPARED: dict[str, list[str]] = {
    "frozen retriever": [row for row in ROWS if row != "frozen retriever"],
    _WARM_ALONE: _TRAINED,
    "BM25": _TRAINED,
    "frozen retriever, hybrid": _TRAINED,
    "JSA, Metropolis, 50 cold": ["JSA, Metropolis, 2 carried", "JSA, exact union"],
    "RAG": ["RAG, 8 passages", "VRAG", "JSA, exact union"],
}
"""Rows by what they are compared with."""
_BATCH, _MOST = 32, 20


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kind", choices=("questions", "dialogue"))
    parser.add_argument("folder", type=Path, nargs="?", help="not needed with --table")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="for every row")
    parser.add_argument("--answered", type=int, default=400, help="test examples that are answered")
    parser.add_argument("--out", type=Path, default=Path("runs/open_answers"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    out = options.out / options.kind
    if not options.table:
        if options.folder is None:
            parser.error("FOLDER is missing; only --table needs none")
        read = begun("reader", named(options.kind, options.folder, [*options.set, *READER], 0), out)
        begins_warm = {_WARM_ALONE, *_TRAINED} & set(options.rows) if options.kind == "dialogue" else set()
        warm = warm_start(options.folder, options.set, out) if begins_warm else []
        for seed in options.seeds:
            for row in options.rows:
                if row == _WARM_ALONE and options.kind == "questions":
                    print(f"{row}: for dialogues only")
                    continue
                own = [*ROWS[row], *(warm if row in begins_warm else [])]
                changes = [*options.set, f"generator.model={read / 'generator'}", *own]
                measure(row, named(options.kind, options.folder, changes, seed), options.answered, out)
    print_table(options.kind, out)


def warm_start(folder: Path, changes: Sequence[str], out: Path) -> list[str]:
    """What a retriever is to begin with after the warm start, which is made where it is missing."""
    place = begun("warm", named("dialogue", folder, [*changes, *WARM], 0), out) / "retriever"
    weight = cast("Result", read_json(place / "retriever.json"))["lexical_weight"]
    return [f"retriever.query_model={place / 'query'}", f"retriever.lexical_weight={weight}"]


def named(kind: str, folder: Path, changes: Sequence[str], seed: int) -> Experiment:
    """The experiment of a row."""
    files = [f"data.{part}={folder / name}.jsonl" for part, name in (("base", "passages"), ("train", "train"))]
    small = RECIPES[f"jsa-rag-small-{kind}"]().with_settings([*files, f"data.test={folder / 'test.jsonl'}", *SMALLER])
    return replace(small, seed=seed).with_settings(changes)


def measure(row: str, experiment: Experiment, answered: int, folder: Path) -> None:
    """Train and score one row, unless its file is there. Raises `UserError` where that is of other settings."""
    file = folder / f"{row.replace(' ', '-')}-seed{experiment.seed}.json"
    settings = fingerprint([experiment.to_json(), str(answered)])
    if file.exists():
        if cast("Result", read_json(file))["experiment"] != settings:
            raise UserError(f"{file} is of other settings; remove it, or choose another --out")
        return
    data = experiment.data.load(experiment.seed)
    place = folder / file.stem
    rmtree(place, ignore_errors=True)  # of a killed attempt
    run = train_experiment(experiment, data, place)
    lines = [cast("Result", line) for _, line in read_jsonl(place / "metrics.jsonl")]
    own = [line for line in lines if line["stage"] == "training"]
    forwards = [line["generator_forwards"] for line in own if "generator_forwards" in line]
    rmtree(place)
    k, asked = experiment.test_passages, data.test[:answered]
    began = time.perf_counter()
    answers = [prediction.answer for prediction in predict(run.model, asked, k)]
    found: Result = {"log_marginal": log_marginal(run.model, asked, k)}
    if k > 0:
        found |= {"rank": gold_ranks(run.model, data.test)}
    golds = [one.targets for one in asked]
    for metric in ("exact_match", "f1", "rouge_l"):
        found[metric] = cast("NDArray[np.float64]", item_scores(metric, golds, answers)).tolist()
    scores = data.task.score(asked, answers)
    record = {"row": row, "seed": experiment.seed, "experiment": settings, "scores": scores, "seconds": run.seconds}
    record |= {"test_seconds": time.perf_counter() - began, "forwards": mean(forwards) if forwards else 0.0}
    record["lexical_weights"] = [
        float(one.lexical_weight.detach())
        for one in (run.model.retriever, run.model.posterior)
        if one is not None and one.lexical_weight is not None
    ]
    write_json(file, record | found | {"answers": answers})
    print(f"{row}, seed {experiment.seed}: {scores}, {run.seconds:.0f} s", flush=True)


def log_marginal(model: RagModel, examples: Sequence[Example], k: int) -> float:
    """The mean of log Σ_z p(z|x) p(y|x,z) over the prior's k best, of each example's first target, in nats: a lower
    bound of the mean of log p(y|x)."""
    objective, rng, total = TopKMarginal(), torch.Generator(), 0.0
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            batch = examples[start : start + _BATCH]
            if k == 0:
                column = torch.full((len(batch), 0), -1, dtype=torch.long)
                total += float(model.likelihood(batch, model.retrieve(batch, 0)).together(column).sum())
            else:
                candidates = model.retrieve(batch, k)
                loss = objective(candidates.scores, model.likelihood(batch, candidates), rng).loss
                total -= float(loss) * len(batch)
    return total / len(examples)


def gold_ranks(model: RagModel, examples: Sequence[Example]) -> list[int]:
    """The rank of the first gold passage, from 1; 0 beyond the twentieth."""
    wanted = gold_rows(examples, rows_by_id(model.base))
    ranks: list[int] = []
    with inference(model):
        for start in range(0, len(examples), _BATCH):
            rows = best_rows(model, examples[start : start + _BATCH], _MOST).tolist()
            for own, gold in zip(rows, wanted[start : start + _BATCH], strict=True):
                ranks.append(next((place + 1 for place, row in enumerate(own) if row in gold), 0))
    return ranks


# ---- the table ------------------------------------------------------------------------------------------------------


def print_table(kind: str, folder: Path) -> None:
    """Means, standard deviations over seeds, and differences of rows."""
    results: dict[str, list[Result]] = {row: [] for row in ROWS}
    for file in sorted(folder.glob("*.json")):
        found = cast("Result", read_json(file))
        results[found["row"]].append(found)
    results = {row: found for row, found in results.items() if found}
    shown = ["exact_match", "f1"] if kind == "questions" else ["f1", "rouge_l", "knowledge_f1"]
    table = Table(title=f"{kind}: built-in models, test", title_justify="left")
    table.add_column("row")
    headings = ("recall@1", "recall@5", "prior's v", "log-marginal", "forwards/query", "seconds", "seeds")
    for heading in (*shown, *headings):
        table.add_column(heading, justify="right")
    for row, found in results.items():
        table.add_row(
            row,
            *(format_spread([one["scores"][name] for one in found if name in one["scores"]]) for name in shown),
            *(format_spread([100 * float(np.mean(hits(one, k))) for one in found if "rank" in one]) for k in (1, 5)),
            " ".join(f"{one['lexical_weights'][0]:.2f}" for one in found if "rank" in one and one["lexical_weights"]),
            format_spread([one["log_marginal"] for one in found]),
            f"{mean(one['forwards'] for one in found):.1f}",
            f"{mean(one['seconds'] for one in found):.0f}",
            " ".join(str(one["seed"]) for one in found),
        )
    console = Console(width=150)
    console.print(table)
    console.print("Differences: mean over common seeds, 95 % paired bootstrap over examples, p of a paired permutation")
    console.print("test, uncorrected for the number of comparisons")
    for control, rows in COMPARED.items():
        for row in rows:
            if control in results and row in results:
                print_difference(row, control, results, console)


def print_difference(row: str, control: str, results: Mapping[str, list[Result]], console: Console) -> None:
    """Of the two rows in F1, and in recall@1 where both retrieve."""
    base = {one["seed"]: one for one in results[control]}
    common = [(base[one["seed"]], one) for one in results[row] if one["seed"] in base]
    if not common:
        return
    measured = {"F1": [[np.array(one["f1"]) for one in pair] for pair in common]}
    if "rank" in common[0][0] and "rank" in common[0][1]:
        measured["recall@1"] = [[100 * hits(one, 1) for one in pair] for pair in common]
    lines = []
    for name, pairs in measured.items():
        found = difference(control, [mean_of(np.concatenate(pair)) for pair in pairs], len(pairs[0][0]))
        interval = found.interval
        lines.append(
            f"{name} {found.mean:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}], p = {found.test.p_value:.3f}"
        )
    console.print(f"  {row}, against {control}: {'; '.join(lines)}; {len(common)} seeds", highlight=False)


def mean_of(items: NDArray[np.float64]) -> Statistic:
    """The mean score of any items."""
    return lambda rows: float(items[rows].mean())


def hits(found: Result, k: int) -> NDArray[np.float64]:
    """1 for each example whose first gold passage is among the k best."""
    rank = np.array(found["rank"])
    return ((rank > 0) & (rank <= k)).astype(float)


if __name__ == "__main__":
    main()
