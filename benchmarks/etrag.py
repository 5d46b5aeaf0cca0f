"""ETRAG on SemEval-2010 Task 8 with built-in models: F1 over k, controls, the classifier; several seeds, paired tests.

    OMP_NUM_THREADS=1 python benchmarks/etrag.py --percent 10 --seeds 0 1 2
    python benchmarks/etrag.py --percent 10 --table

Each row differs from the recipe ``etrag-semeval-10`` in the settings of ``ROWS``. Every system, the classifier too, is
scored on the official test sentences alone and with the decision that was fitted on 400 held-out training sentences. k
is the number of soft slots; the decision mixes in the vote of the best 64, so the effect of k is in "alone". Seeds
differ in training, not in the sentences drawn: the spread is that of training. Finished rows stay in
``--out``. Settings were chosen on held-out training sentences, never on the test.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from relation_classifier import train_classifier
from rows import Result, decided, measure, print_table, trained

from retrograd.evaluation.calibration import fit_decision
from retrograd.experiments.data.relations import Data
from retrograd.experiments.experiment import Experiment
from retrograd.recipes import RECIPES

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
                find = partial(classified, CLASSIFIER_EPOCHS[options.percent]) if row == CLASSIFIER else trained
                measure(row, named(row, options.percent, seed), folder, find)
    title = f"SemEval-2010 Task 8, {options.percent} % of the training data, official macro-F1"
    retrieving = [row for row in ROWS if row.startswith("k = ") and not row.startswith("k = 0")]
    print_table(title, [*ROWS, CLASSIFIER, PUBLISHED], folder, retrieving)


def named(row: str, percent: int, seed: int) -> Experiment:
    """The experiment of a row; the classifier takes its data alone."""
    recipe = f"etrag-semeval-{percent}" + ("-published" if row == PUBLISHED else "")
    return replace(RECIPES[recipe](), seed=seed).with_settings(ROWS.get(row, []))


def classified(epochs: int, experiment: Experiment, data: Data, _: Path) -> Result:
    """Answers of the classifier, whose threshold is fitted on the same development data."""
    began = time.perf_counter()
    model = train_classifier(data, epochs, experiment.seed)
    seconds = time.perf_counter() - began

    def official(rows: Sequence[int], answers: Sequence[str]) -> float:
        return data.task.score([data.dev[row] for row in rows], answers)["macro_f1"]

    decision, _, _ = fit_decision(model.choice_scores(data.dev), official)
    return {
        "answers": decided(model.choice_scores(data.test), decision),
        "seconds": seconds,
        "decision": vars(decision),
    }


if __name__ == "__main__":
    main()
