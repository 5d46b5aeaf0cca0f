"""ETRAG on SemEval-2010 Task 8 with built-in models: F1 over k, controls, the classifier; several seeds, paired tests.

    OMP_NUM_THREADS=1 python benchmarks/etrag.py --percent 10 --seeds 0 1 2
    python benchmarks/etrag.py --percent 10 --table

Each row differs from the recipe ``etrag-semeval-10`` in the settings of ``ROWS``. Every system, the classifier too, is
scored on the official test sentences alone and with the decision that was fitted on 400 held-out training sentences. k
is the number of soft slots; the decision mixes in the vote of the best 64, so the effect of k is in "alone". Seeds
differ in training, not in the sentences drawn: the spread is that of training. Finished rows stay in ``--out`` and are
not run again, so a killed benchmark goes on, and two processes may share the work by seed. Settings were chosen on
held-out training sentences, never on the test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from statistics import mean, stdev
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from relation_classifier import train_classifier
from rich.console import Console
from rich.table import Table

from retrograd.evaluation.calibration import fit_decision
from retrograd.evaluation.evaluate import answering_batches, neighbour_scores, vote
from retrograd.io import fingerprint, read_json, write_json
from retrograd.metrics.relation_resampling import semeval_resampler
from retrograd.metrics.significance import paired_bootstrap_corpus, paired_permutation_corpus
from retrograd.rag.decision import ChoiceScores, Decision
from retrograd.recipes import RECIPES
from retrograd.recipes.data import Data, load_data
from retrograd.recipes.experiment import Experiment
from retrograd.recipes.run import train_experiment
from retrograd.types import UserError

CLOSED_BOOK = [
    "objective.kind=NoRetrieval",
    "retriever.trained=none",
    "training.passages=0",
    "training.epochs=10",
    "training.distraction=0.0",
]
ROWS: dict[str, list[str]] = {
    "k = 0 (no retrieval)": CLOSED_BOOK,
    **{f"k = {k}": [f"objective.slots={k}"] for k in (1, 3, 5, 10)},
    "frozen retriever": ["retriever.trained=none"],
    "random retriever": ["retriever.trained=none", "retriever.search=random"],
    "labels shuffled": ["data.base_labels=shuffled"],
    "role vectors in the slots": ["soft_prompt.form=improved"],
    "no distraction": ["training.distraction=0.0"],
    "no warm start": ["warm_start.epochs=0"],
    "no vote in the loss": ["objective.vote_weight=0.0"],
}
"""Unless said otherwise a row has the recipe's epochs; the generator without retrieval gets ten."""

CLASSIFIER, PUBLISHED = "entity-marker classifier", "as published"
CLASSIFIER_EPOCHS = {10: 10, 100: 5}

Result = dict[str, Any]
"""What `measure` writes."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--percent", type=int, choices=(10, 100), default=10)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--rows", nargs="+", choices=[*ROWS, CLASSIFIER, PUBLISHED], default=[*ROWS, CLASSIFIER, PUBLISHED]
    )
    parser.add_argument("--out", type=Path, default=Path("runs/etrag"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    folder = options.out / str(options.percent)
    if not options.table:
        for seed in options.seeds:
            for row in options.rows:
                measure(row, options.percent, seed, folder)
    print_table(folder, options.percent)


def measure(row: str, percent: int, seed: int, folder: Path) -> None:
    """Train and score one row, unless its file is there. Raises `UserError` where that is of other settings."""
    file = folder / f"{row.replace(' ', '-')}-seed{seed}.json"
    experiment = named(row, percent, seed)
    settings = fingerprint([experiment.to_json()])
    if file.exists():
        if cast("Result", read_json(file))["experiment"] != settings:
            raise UserError(f"{file} is of other settings; remove it, or choose another --out")
        return
    data = load_data(experiment.data, seed)
    place = folder / file.stem
    rmtree(place, ignore_errors=True)  # of a killed attempt
    found = classified(data, percent, seed) if row == CLASSIFIER else trained(experiment, data, place)
    rmtree(place, ignore_errors=True)
    answers = found.pop("answers")
    task = data.task
    scores = {how: task.score(data.test, given)["macro_f1"] for how, given in answers.items()}
    relations = {
        how: [task.relation_of(answer, example) for answer, example in zip(given, data.test, strict=True)]
        for how, given in answers.items()
    }
    gold = [task.relation_of(example.target, example) for example in data.test]
    record = {"row": row, "seed": seed, "experiment": settings, "scores": scores, **found, "gold": gold}
    write_json(file, record | {"answers": relations})
    print(f"{row}, seed {seed}: {scores}, {found['seconds']:.0f} s", flush=True)


def named(row: str, percent: int, seed: int) -> Experiment:
    """The experiment of a row; the classifier takes its data alone."""
    recipe = f"etrag-semeval-{percent}" + ("-published" if row == PUBLISHED else "")
    return replace(RECIPES[recipe](), seed=seed).with_settings(ROWS.get(row, []))


def trained(experiment: Experiment, data: Data, place: Path) -> Result:
    """Answers of a trained model: by the generator alone, as decided, and by the vote of all instances."""
    run = train_experiment(experiment, data, place)
    model, k = run.model, experiment.test_passages
    with run.accelerator.autocast():
        scored = [one for part in answering_batches(data.test, k) for one in model.choice_scores(part, k) or []]
        found = {"answers": decided(scored, model.decision), "seconds": run.seconds, "decision": vars(model.decision)}
        if k > 0:
            found["answers"]["vote"] = vote(model, data.test)
            found["neighbours"] = neighbour_scores(model, data.test)
    return found


def classified(data: Data, percent: int, seed: int) -> Result:
    """The same of the classifier, whose threshold is fitted on the same development data."""
    began = time.perf_counter()
    model = train_classifier(data, CLASSIFIER_EPOCHS[percent], seed)
    seconds = time.perf_counter() - began

    def official(rows: Sequence[int], answers: Sequence[str]) -> float:
        return data.task.score([data.dev[row] for row in rows], answers)["macro_f1"]

    decision, _, _ = fit_decision(model.choice_scores(data.dev), official)
    return {
        "answers": decided(model.choice_scores(data.test), decision),
        "seconds": seconds,
        "decision": vars(decision),
    }


def decided(scored: Sequence[ChoiceScores], decision: Decision) -> dict[str, list[str]]:
    """Answers without and with a decision."""
    return {
        "plain": [one.choices[Decision().chosen(one)] for one in scored],
        "decided": [one.choices[decision.chosen(one)] for one in scored],
    }


# ---- the table ------------------------------------------------------------------------------------------------------


def print_table(folder: Path, percent: int) -> None:
    """Means, standard deviations over seeds, and what they differ by."""
    results: dict[str, list[Result]] = {row: [] for row in (*ROWS, CLASSIFIER, PUBLISHED)}
    for file in sorted(folder.glob("*.json")):
        found = cast("Result", read_json(file))
        results[found["row"]].append(found)
    table = Table(
        title=f"SemEval-2010 Task 8, {percent} % of the training data, official macro-F1", title_justify="left"
    )
    table.add_column("row")
    for heading in ("alone", "decided", "kNN vote", "match @1", "λ", "seconds", "seeds"):
        table.add_column(heading, justify="right")
    for row, found in results.items():
        if found:
            weights = [f"{one['decision']['vote_weight']:g}" for one in found if "decision" in one]
            matches = [one["neighbours"]["precision@1"] for one in found if "neighbours" in one]
            table.add_row(
                row,
                *(
                    spread([one["scores"][how] for one in found if how in one["scores"]])
                    for how in ("plain", "decided", "vote")
                ),
                spread(matches),
                " ".join(weights),
                f"{mean(one['seconds'] for one in found):.0f}",
                " ".join(str(one["seed"]) for one in found),
            )
    console = Console(width=150)
    console.print(table)
    done = {row: found for row, found in results.items() if found}
    retrieving = [row for row in done if row.startswith("k = ") and not row.startswith("k = 0")]
    if retrieving:
        # The k to compare with is the one that scores best here: a choice on the test, which favours it a little.
        best = max(retrieving, key=lambda row: mean(one["scores"]["decided"] for one in done[row]))
        console.print(f"{best}, decided, against others: mean over common seeds, 95 % paired bootstrap over sentences,")
        console.print("p of a paired permutation test, uncorrected for the number of comparisons")
        for row, found in done.items():
            for how in ("plain", "decided", "vote"):
                compared = (row, how) != (best, "decided") and (how != "vote" or row == best)
                if compared and how in found[0]["scores"]:
                    console.print(f"  {row}, {how}: {difference(found, how, done[best])}", highlight=False)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation."""
    if not values:
        return ""
    return f"{mean(values):.1f}" + (f" ± {stdev(values):.1f}" if len(values) > 1 else "")


def difference(baseline: list[Result], how: str, system: list[Result]) -> str:
    """Of the mean score over the seeds that both have."""
    other = {one["seed"]: one for one in system}
    pairs = [(one, other[one["seed"]]) for one in baseline if one["seed"] in other]
    if not pairs:
        return "no common seed"
    gold = pairs[0][0]["gold"]
    parts = [semeval_resampler([*gold, *gold], [*a["answers"][how], *b["answers"]["decided"]]) for a, b in pairs]

    def statistic(rows: NDArray[np.int64]) -> float:
        return float(np.mean([part(rows) for part in parts]))

    draw = partial(np.random.default_rng, 0)
    interval = paired_bootstrap_corpus(statistic, len(gold), draw())
    test = paired_permutation_corpus(statistic, len(gold), draw())
    return (
        f"{interval.difference:+.1f} [{interval.low:+.1f}, {interval.high:+.1f}], p = {test.p_value:.3f}, "
        f"{len(pairs)} seeds"
    )


if __name__ == "__main__":
    main()
