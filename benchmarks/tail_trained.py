"""What draws from the tail are worth in trained scores: 6 + 6 candidates with five draws against 9 + 9 without.

    OMP_NUM_THREADS=1 python benchmarks/tail_trained.py relations questions=FOLDER dialogue=FOLDER
    python benchmarks/tail_trained.py --table

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl``. Both settings score about as many passages a query
(`benchmarks/tail.py`), begin with one warm start and one seed, and are trained by JSA with exact weights on the
built-in generator. A row that was stopped goes on where it was; a finished one leaves a small file in ``--out``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from statistics import mean
from typing import Any, cast

from rich.console import Console
from rich.table import Table
from trial_rows import FILES

from retrograd.experiments.run import resume_run, run_experiment
from retrograd.recipes import RECIPES
from retrograd.util.text_files import read_json, write_json

SMALL = ["data.train_count=640", "data.test_count=600", "training.epochs=1"]
KINDS: Mapping[str, tuple[str, list[str]]] = {
    "relations": ("semeval-jsa", SMALL),
    "questions": ("jsa-rag-small-questions", [*SMALL, "second_stage.epochs=0"]),
    "dialogue": ("jsa-rag-small-dialogue", [*SMALL, "second_stage.epochs=0"]),
}
SETTINGS: Mapping[str, list[str]] = {
    "9 + 9": ["training.passages=9", "training.tail=0"],
    "6 + 6, 5 of the tail": ["training.passages=6", "training.tail=5"],
}
"""Passages that each retriever proposes, and draws of the prior's tail; all answer from five passages."""
COLUMNS = ("macro_f1", "exact_match", "f1", "precision@1", "gold_recall@1", "gold_recall@5")


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kinds", nargs="*", metavar="KIND[=FOLDER]", help=f"some of {', '.join(KINDS)}")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="for every row")
    parser.add_argument("--runs", type=Path, default=Path("runs/tail"))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/tail"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    for seed in [] if options.table else options.seeds:
        for given in options.kinds:
            kind, _, folder = given.partition("=")
            for name, changes in SETTINGS.items():
                row = f"{kind}-{'tail' if 'tail' in name else 'plain'}-{seed}"
                own = [*KINDS[kind][1], *changes, f"seed={seed}", "evaluation.passages=5", *options.set]
                if folder:
                    own += [f"data.{part}={Path(folder) / file}.jsonl" for part, file in FILES.items()]
                measure(kind, name, seed, own, options.runs / row, options.out / f"{row}.json")
    print_table(options.out)


def measure(kind: str, name: str, seed: int, changes: list[str], place: Path, out: Path) -> None:
    """Train and score one row, unless its file is there."""
    if out.exists():
        return
    began = time.perf_counter()
    recipe = RECIPES[KINDS[kind][0]]
    run = resume_run(place) if place.exists() else run_experiment(recipe().with_settings(changes), place)
    scores = run.all_scores()
    seconds = round(time.perf_counter() - began)
    write_json(out, {"kind": kind, "row": name, "seed": seed, "seconds": seconds, "scores": scores})
    print(f"{kind}, {name}, seed {seed}: {scores}, {seconds} s", flush=True)


def print_table(folder: Path) -> None:
    """Print the mean over the seeds of each row, and each seed in brackets."""
    found = [cast("dict[str, Any]", read_json(file)) for file in sorted(folder.glob("*.json"))]
    for kind in KINDS:
        rows = {name: [one for one in found if (one["kind"], one["row"]) == (kind, name)] for name in SETTINGS}
        columns = [name for name in COLUMNS if any(name in one["scores"] for own in rows.values() for one in own)]
        table = Table(title=f"{kind}: trained by JSA, exact weights", title_justify="left")
        for heading in ("candidates", *columns, "seconds"):
            table.add_column(heading, justify="left" if heading == "candidates" else "right")
        for name, own in rows.items():
            if own:
                cells = [[one["scores"][column] for one in own] for column in columns]
                texts = [f"{mean(cell):.1f} ({', '.join(f'{value:.1f}' for value in cell)})" for cell in cells]
                table.add_row(name, *texts, f"{mean(one['seconds'] for one in own):.0f}")
        if table.row_count:
            Console(width=150).print(table)


if __name__ == "__main__":
    main()
