"""RAG4RE's prompt on SemEval-2010 Task 8 at 10 %, built-in models: frozen against trained retrievers, and controls.

    OMP_NUM_THREADS=1 python benchmarks/rag4re.py --seeds 0 1 2
    python benchmarks/rag4re.py --table

Each row differs from the recipe ``rag4re-semeval`` in the settings of ``ROWS``; no decision is fitted, so "alone" and
"decided" are the same. Rows ``begun`` are so with a generator that has seen each training sentence twice, without
neighbours (`BEGINNING`): beside useless neighbours the built-in one does not learn in three epochs what it is asked. It
does beside good ones, and then begins better without: what it knows of a sentence it does not read from its neighbours.
Seeds differ in training, not in the sentences drawn.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from rows import begun, measure, print_table, trained

from retrograd.recipes.rag4re import semeval

FROZEN = "retriever.trained=none"
NO_RETRIEVAL = ["objective.kind=NoRetrieval", FROZEN, "training.passages=0", "training.distraction=0.0"]
BEGINNING = [*NO_RETRIEVAL, "training.epochs=2"]
RANDOM = [FROZEN, "retriever.search=random", "training.distraction=0.0"]
RAG4RE = [
    FROZEN,
    "retriever.pooling=mean",
    "data.query_style=marked",
    "data.neighbour_style=unlabelled",
    "training.passages=1",
    "training.distraction=0.0",
]
UNLABELLED = "data.neighbour_style=unlabelled"
ROWS: dict[str, list[str]] = {
    "no retrieval": [*NO_RETRIEVAL, "training.epochs=10"],
    "random neighbours": RANDOM,
    "random neighbours, begun": RANDOM,
    "sentence vectors, one unlabelled (RAG4RE)": RAG4RE,
    "sentence vectors, one unlabelled (RAG4RE), begun": RAG4RE,
    "BM25, labelled, begun": [FROZEN, "retriever.search=bm25", "training.distraction=0.0"],
    "frozen, unlabelled, begun": [FROZEN, UNLABELLED],
    "frozen, labelled": [FROZEN],
    "frozen, labelled, begun": [FROZEN],
    "trained, unlabelled": [UNLABELLED],
    "trained, labelled": [],
    "trained, labelled, begun": [],
    "trained, labelled, list of relations": ["data.input_style=instructed", "generator.max_input_tokens=320"],
}
"""Three neighbours each, read one by one, unless said otherwise, for three epochs; ten without any."""


def main() -> None:
    """Run what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS))
    parser.add_argument("--out", type=Path, default=Path("runs/rag4re"))
    parser.add_argument("--table", action="store_true", help="run nothing, print what there is")
    options = parser.parse_args()
    if not options.table:
        for seed in options.seeds:
            recipe = replace(semeval(), seed=seed)
            for row in options.rows:
                changes = list(ROWS[row])
                if row.endswith("begun"):
                    model = begun("beginning", recipe.with_settings(BEGINNING), options.out)
                    changes.append(f"generator.model={model / 'generator'}")
                measure(row, recipe.with_settings(changes), options.out, trained)
    print_table(
        "RAG4RE on SemEval-2010 Task 8, 10 %, official macro-F1", list(ROWS), options.out, ["trained, labelled"]
    )


if __name__ == "__main__":
    main()
