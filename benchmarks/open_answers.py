"""Questions and dialogues on built-in models: closed book, frozen, RAG, VRAG, JSA; several seeds, paired tests.

    OMP_NUM_THREADS=1 python benchmarks/open_answers.py questions FOLDER --seeds 0 1
    python benchmarks/open_answers.py questions FOLDER --table

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl`` (`docs/questions.md`). Each row differs from the
recipe ``jsa-rag-small-questions`` or ``jsa-rag-small-dialogue`` in `SMALLER`, in ``--set`` and in its own settings of
`ROWS`; candidates, temperature and steps are equal. All rows of all seeds begin with one generator, which has learnt to
read what an untrained retriever finds (`READER`). Recall is over all test examples, answers and log-marginal over the
first ``--answered`` of them. Finished rows stay in ``--out`` and are not run again. Seeds differ in the order of the
examples and in what is drawn in training, not in the examples nor in what they begin with.
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
from retrograd.evaluation.evidence import spread
from retrograd.evaluation.open_retrieval import best_rows
from retrograd.io import fingerprint, read_json, read_jsonl, write_json
from retrograd.metrics.answer_resampling import item_scores
from retrograd.metrics.significance import paired_bootstrap, paired_permutation
from retrograd.models.inference import inference
from retrograd.objectives import TopKMarginal
from retrograd.rag.rag_model import RagModel
from retrograd.recipes import RECIPES
from retrograd.recipes.experiment import Experiment
from retrograd.recipes.run import train_experiment
from retrograd.tasks.relevance import gold_rows, rows_by_id
from retrograd.types import Example, UserError

Result = dict[str, Any]
"""What `measure` writes."""

SMALLER = ["data.train_count=240", "data.seed=0", "data.dev=", "data.dev_count=0", "second_stage.epochs=0"]
SMALLER += ["warm_start.epochs=0", "training.epochs=3"]
SMALLER += ["retriever.lexical_weight=0.0", "training.scale_learning_rate=0.1"]
"""What keeps a row small enough for two cores. The examples are the same for all seeds, and visited three times, so that
chains are carried. Retrievers begin without words, as the frozen encoder, and learn in 45 steps what words are worth;
hence the rate."""

ALONE = ["retriever.trained=none", "retriever.posterior=false"]
FROZEN = ["objective.kind=FrozenRetriever", *ALONE]
READER = [*FROZEN, "retriever.lexical_weight=1.0", "data.train_count=0", "training.passages=1", "training.epochs=2"]
"""Two visits of every training question or turn, with the one passage that the untrained hybrid search finds: it is
more often the right one than the encoder's, and needs no label either."""

JSA = "objective.kind=JointStochasticApproximation"
ROWS: dict[str, list[str]] = {
    "closed book": ["objective.kind=NoRetrieval", "training.passages=0", *ALONE],
    "frozen retriever": FROZEN,
    "frozen retriever, hybrid": [*FROZEN, "retriever.lexical_weight=1.0"],
    "BM25": [*FROZEN, "retriever.search=bm25", "retriever.lexical_dimensions=0"],
    "RAG": ["objective.kind=TopKMarginal", "retriever.posterior=false"],
    "VRAG": ["objective.kind=Variational", "objective.form=published"],
    "JSA, Metropolis, 2 carried": [JSA, "objective.sampler=metropolis", "objective.draws=2", "objective.chain=carried"],
    "JSA, Metropolis, 50 cold": [JSA, "objective.sampler=metropolis", "objective.draws=50", "objective.chain=cold"],
    "JSA, exact union": [JSA],
}
BASELINE = "frozen retriever"
_BATCH, _MOST = 32, 20


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kind", choices=("questions", "dialogue"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="for every row")
    parser.add_argument("--answered", type=int, default=400, help="test examples that are answered")
    parser.add_argument("--out", type=Path, default=Path("runs/open_answers"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    out = options.out / options.kind
    if not options.table:
        began = begun("reader", named(options.kind, options.folder, [*options.set, *READER], 0), out)
        for seed in options.seeds:
            for row in options.rows:
                changes = [*options.set, f"generator.model={began}", *ROWS[row]]
                measure(row, named(options.kind, options.folder, changes, seed), options.answered, out)
    print_table(options.kind, out)


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
    with run.accelerator.autocast():
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
    write_json(file, record | found | {"answers": answers})
    print(f"{row}, seed {experiment.seed}: {scores}, {run.seconds:.0f} s", flush=True)


def log_marginal(model: RagModel, examples: Sequence[Example], k: int) -> list[float]:
    """log Σ_z p(z|x) p(y|x,z) over the prior's k best, of each example's first target, in nats: a lower bound."""
    objective, rng, found = TopKMarginal(), torch.Generator(), []
    with inference(model):
        for one in examples:
            if k == 0:
                column = torch.full((1, 0), -1, dtype=torch.long)
                found.append(float(model.likelihood([one], model.retrieve([one], 0)).together(column)))
                continue
            candidates = model.retrieve([one], k)
            found.append(-float(objective(candidates.scores, model.likelihood([one], candidates), rng).loss))
    return found


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
    """Means, standard deviations over seeds, and differences to the frozen retriever."""
    results: dict[str, list[Result]] = {row: [] for row in ROWS}
    for file in sorted(folder.glob("*.json")):
        found = cast("Result", read_json(file))
        results[found["row"]].append(found)
    results = {row: found for row, found in results.items() if found}
    shown = ["exact_match", "f1"] if kind == "questions" else ["f1", "rouge_l", "knowledge_f1"]
    table = Table(title=f"{kind}: built-in models, test", title_justify="left")
    table.add_column("row")
    headings = ("recall@1", "recall@5", "log-marginal", "forwards/query", "seconds", "seeds")
    for heading in (*shown, *headings):
        table.add_column(heading, justify="right")
    for row, found in results.items():
        table.add_row(
            row,
            *(spread([one["scores"][name] for one in found if name in one["scores"]]) for name in shown),
            *(spread([100 * float(np.mean(hits(one, k))) for one in found if "rank" in one]) for k in (1, 5)),
            spread([mean(one["log_marginal"]) for one in found]),
            f"{mean(one['forwards'] for one in found):.1f}",
            f"{mean(one['seconds'] for one in found):.0f}",
            " ".join(str(one["seed"]) for one in found),
        )
    console = Console(width=150)
    console.print(table)
    if BASELINE in results:
        print_differences(results, console)


def print_differences(results: Mapping[str, list[Result]], console: Console) -> None:
    """To the frozen retriever: means over common seeds, paired over examples."""
    console.print(f"against the {BASELINE}: mean over common seeds, 95 % paired bootstrap over examples, p of a paired")
    console.print("permutation test, uncorrected for the number of comparisons")
    for row, found in results.items():
        base = {one["seed"]: one for one in results[BASELINE]}
        common = [(one, base[one["seed"]]) for one in found if one["seed"] in base]
        if row == BASELINE or not common:
            continue
        lines = [f"F1 {_difference([(np.array(a['f1']), np.array(b['f1'])) for a, b in common])}"]
        if "rank" in found[0]:
            lines.append(f"recall@1 {_difference([(100 * hits(a, 1), 100 * hits(b, 1)) for a, b in common])}")
        console.print(f"  {row}: {'; '.join(lines)}; {len(common)} seeds", highlight=False)


def hits(found: Result, k: int) -> NDArray[np.float64]:
    """1 for each example whose first gold passage is among the k best."""
    rank = np.array(found["rank"])
    return ((rank > 0) & (rank <= k)).astype(float)


def _difference(pairs: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> str:
    system, baseline = (np.mean([pair[side] for pair in pairs], axis=0) for side in (0, 1))
    interval = paired_bootstrap(baseline, system, np.random.default_rng(0))
    test = paired_permutation(baseline, system, np.random.default_rng(0))
    return f"{interval.difference:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}], p = {test.p_value:.3f}"


if __name__ == "__main__":
    main()
