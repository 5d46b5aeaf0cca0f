"""What a run gives up that searches with faiss: the same experiment on each engine, over the same questions.

    python benchmarks/engines.py FOLDER SCRATCH --presets flat ivf

FOLDER holds ``passages.jsonl``, ``train.jsonl`` and ``test.jsonl``. The recipe ``jsa-rag-small-questions`` is trained
into SCRATCH with a passage tower that rests, whose embeddings all runs share: on the exact index with the normaliser
over the whole base, on the exact index with the candidates' alone, and on faiss, with each preset, with theirs.
What parts the second from the third is the engine; what parts it from the first, the normaliser. One seed each.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.table import Table

from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.index.faiss import FaissIndex
from retrograd.recipes import recipe


def main() -> None:
    """Train on each engine and print a table of scores."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--presets", nargs="+", default=["flat", "ivf"])
    parser.add_argument("--set", dest="changes", action="append", default=[], help="more settings of the experiment")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    common = [
        f"data.base={data / 'passages.jsonl'}",
        f"data.train={data / 'train.jsonl'}",
        f"data.test={data / 'test.jsonl'}",
        "data.dev=",
        "retriever.separate_towers=true",
        "retriever.trained=query",
        *arguments.changes,
    ]
    candidates = "objective.normaliser=candidates"
    runs = {"exact, whole base": [], "exact, candidates": [candidates]}
    for preset in arguments.presets:
        runs[f"faiss {preset}, candidates"] = [candidates, "index.kind=faiss", f"index.preset={preset}"]
    table, console = Table(box=None, pad_edge=False), Console(width=160)
    names: list[str] = []
    for name, settings in runs.items():
        experiment = recipe("jsa-rag-small-questions").with_settings([*common, *settings])
        run = run_experiment(experiment, arguments.scratch / name.replace(", ", "-").replace(" ", "-"))
        scores, index = run.all_scores(), open_run(run.path).model.index
        if not names:
            names = list(scores)
            for heading in ("run", "recall of the engine", *names):
                table.add_column(heading)
        recall = f"{index.recall:.3f}" if isinstance(index, FaissIndex) else "1"
        table.add_row(name, recall, *(f"{scores[score]:.1f}" for score in names))
        console.print(table)


if __name__ == "__main__":
    main()
