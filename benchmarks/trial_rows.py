"""Trial rows with SmolLM2: does it train, and what does it score beside the untrained model and the closed book?

    OMP_NUM_THREADS=1 python benchmarks/trial_rows.py questions FOLDER
    OMP_NUM_THREADS=1 python benchmarks/trial_rows.py relations
    python benchmarks/trial_rows.py --table

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl`` (`docs/questions.md`, `docs/dialogue.md`). Each row
is a recipe ``smollm2-…`` with the changes of `ROWS`, one seed. A row that was stopped goes on where it was; a finished
one leaves a small file in ``--out``, and is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.recipes import RECIPES
from retrograd.util.text_files import read_json, read_jsonl, write_json

Result = dict[str, Any]
"""What `measure` writes."""

UNTRAINED = ["training.epochs=0"]
SLOTS = ["objective.kind=RelaxedTopK", "objective.slots=3", "objective.best=64", "objective.vote_weight=0.0"]
SLOTS += ["training.passages=64", "evaluation.passages=64", "data.neighbour_style=label only"]
"""ETRAG's soft prompt before the prompt of a decoder-only model: three slots of the mixed words of labels."""

ROWS: Mapping[str, Mapping[str, tuple[str, list[str]]]] = {
    "questions": {
        "frozen": ("smollm2-questions-frozen", []),
        "JSA, exact": ("smollm2-questions-joint", []),
        "untrained": ("smollm2-questions-frozen", UNTRAINED),
        "closed book": ("smollm2-questions-no-retrieval", []),
    },
    "relations": {
        "frozen": ("smollm2-semeval-frozen", []),
        "joint": ("smollm2-semeval-joint", []),
        "soft slots": ("smollm2-semeval-joint", SLOTS),
        "untrained": ("smollm2-semeval-frozen", UNTRAINED),
        "closed book": ("smollm2-semeval-no-retrieval", []),
    },
    "dialogue": {
        "frozen": ("smollm2-dialogue-frozen", []),
        "untrained": ("smollm2-dialogue-frozen", UNTRAINED),
    },
}


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kind", choices=list(ROWS), nargs="?", help="not needed with --table")
    parser.add_argument("folder", type=Path, nargs="?", help="of questions and dialogues")
    parser.add_argument("--rows", nargs="+", help="some of the kind's rows")
    parser.add_argument("--set", nargs="+", default=[], metavar="SETTING=VALUE", help="for every row")
    parser.add_argument("--runs", type=Path, default=Path("runs/trial"), help="folder of the runs")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/smollm2"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    if not options.table:
        if options.kind is None or (options.folder is None and options.kind != "relations"):
            parser.error("KIND, or the FOLDER of its data, is missing; only --table needs neither")
        for row in options.rows or ROWS[options.kind]:
            recipe, changes = ROWS[options.kind][row]
            files: list[str] = []
            if options.folder is not None:
                files = [f"data.{part}={options.folder / name}.jsonl" for part, name in FILES.items()]
            experiment = RECIPES[recipe]().with_settings([*files, *changes, *options.set])
            name = f"{options.kind}-{row.replace(', ', '-').replace(' ', '-')}"
            measure(options.kind, row, experiment, options.runs / name, options.out / f"{name}.json")
    print_table(options.out)


FILES = {"base": "passages", "train": "train", "test": "test"}


def measure(kind: str, row: str, experiment: Experiment, place: Path, out: Path) -> None:
    """Train and score one row, unless its file is there."""
    if out.exists():
        return
    began = time.perf_counter()
    if place.exists():
        resume_run(place)
    else:
        run_experiment(experiment, place)
    lines = [cast("Result", line) for _, line in read_jsonl(file)] if (file := place / "metrics.jsonl").exists() else []
    record: Result = {"kind": kind, "row": row, "seconds": round(time.perf_counter() - began), "steps": lines}
    record |= {"threads": torch.get_num_threads(), "processor": torch.cpu.get_capabilities().get("cpu_name", "")}
    record |= {"scores": read_json(place / "scores.json"), "confidence": read_json(place / "confidence.json")}
    record["answers"] = [cast("Result", line)["answer"] for _, line in read_jsonl(place / "predictions.jsonl")]
    write_json(out, record)
    print(f"{kind}, {row}: {record['scores']}, {record['seconds']} s", flush=True)


# ---- the table ------------------------------------------------------------------------------------------------------

COLUMNS: Mapping[str, tuple[str, ...]] = {
    "questions": ("exact_match", "f1", "gold_recall@1", "gold_recall@5"),
    "relations": ("macro_f1", "precision@1", "precision@5"),
    "dialogue": ("f1", "rouge_l", "knowledge_f1", "gold_recall@1", "gold_recall@5"),
}
EVERY = ("citation_precision@1", "citation_prior_precision@1", "citation_chance", "ece", "aurc")


def print_table(folder: Path) -> None:
    """Print one table a kind: scores, citations, confidence."""
    found = [cast("Result", read_json(file)) for file in sorted(folder.glob("*.json"))]
    for kind, rows in ROWS.items():
        own = {one["row"]: one for one in found if one["kind"] == kind}
        columns = [*COLUMNS[kind], *EVERY]
        table = Table(title=f"{kind}: SmolLM2-135M-Instruct, LoRA, one seed, test", title_justify="left")
        for heading in ("row", *columns, "seconds"):
            table.add_column(heading, justify="left" if heading == "row" else "right")
        for row in rows:
            if row in own:
                scores: Result = {}
                for group in own[row]["scores"].values():
                    scores |= group
                values = [f"{scores[name]:.1f}" if name in scores else "–" for name in columns]
                table.add_row(row, *values, str(own[row]["seconds"]))
        if table.row_count:
            Console(width=170).print(table)


if __name__ == "__main__":
    main()
