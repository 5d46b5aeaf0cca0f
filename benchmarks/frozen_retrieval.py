"""What the built-in encoder finds untrained: gold passages of questions, and of dialogues by what is read of them.

    python benchmarks/frozen_retrieval.py questions FOLDER --part test
    python benchmarks/frozen_retrieval.py dialogue FOLDER --part dev

FOLDER holds ``passages.jsonl`` and the part as JSON Lines with gold passages (`docs/questions.md`). Of a question the
recipe ``jsa-rag-small-questions`` is scored as it is; of a dialogue every way in ``WAYS`` to turn turns into a query,
the first being the recipe's. Each is scored with every ``--lexical-weights``: 0 is the encoder alone. Last comes BM25,
where bm25s is installed. No weight is trained, so there is one figure and no spread.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn

from retrograd.data.examples import DialogueExample
from retrograd.experiments.build import build_model
from retrograd.experiments.run import compute_for
from retrograd.metrics.ranking import Recall, ranking_scores, relevance
from retrograd.models.compute.inference import inference
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search.bm25 import index_words, words_of_query
from retrograd.recipes import RECIPES
from retrograd.tasks.relevance import gold_rows, rows_by_id
from retrograd.types import Example

CUTOFFS = (1, 5, 20)
BATCH = 256


def said(turns: int, between: str = " ", last_first: bool = True, names: bool = False) -> Callable[[Example], str]:
    """The last ``turns`` of a dialogue as one text; 0 is all."""

    def text(example: Example) -> str:
        history = example.history[-turns:] if isinstance(example, DialogueExample) else ()
        words = [str(turn) if names else turn.text for turn in history]
        return between.join(reversed(words) if last_first else words)

    return text


WAYS: dict[str, Callable[[Example], str]] = {
    "eight turns, last first": said(8),
    "three turns, last first": said(3),
    "three turns, last first, bars": said(3, " | "),
    "three turns, last first, bars, names": said(3, " | ", names=True),
    "three turns in their order": said(3, last_first=False),
    "three turns in their order, names": said(3, "\n", last_first=False, names=True),
    "the last turn": said(1),
}


def main() -> None:
    """Embed the passages once, search with every way, print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("kind", choices=("questions", "dialogue"))
    parser.add_argument("folder", type=Path)
    parser.add_argument("--part", choices=("dev", "test"), default="test")
    parser.add_argument("--lexical-weights", type=float, nargs="+", default=[0.0, 1.0], help="nats a point of BM25")
    options = parser.parse_args()
    files = [f"data.base={options.folder / 'passages.jsonl'}", f"data.test={options.folder / options.part}.jsonl"]
    experiment = RECIPES[f"jsa-rag-small-{options.kind}"]().with_settings(
        [*files, "data.train=", "data.dev=", "data.dev_count=0"]
    )
    data = experiment.data.load(0)
    compute, rng = compute_for(experiment), torch.Generator().manual_seed(0)
    model = build_model(experiment, data, rng, compute.precision).to(compute.device).eval()
    model.refresh_index()
    wanted = gold_rows(data.test, rows_by_id(data.base))
    ways = WAYS if options.kind == "dialogue" else {"the question": data.task.query_text}
    table = Table(
        "query", *(f"gold recall@{k}" for k in CUTOFFS), title=f"{len(data.test)} examples", title_justify="left"
    )

    def add(name: str, ranked: list[list[int]]) -> None:
        judged = relevance(ranked, wanted)
        scores = ranking_scores([*map(Recall, CUTOFFS)], judged.relevant, judged.total)
        table.add_row(name, *(f"{value:.1f} %" for value in scores.values()))

    for name, text in ways.items():
        for weight in options.lexical_weights:
            model.retriever.lexical_weight = nn.Parameter(torch.tensor(weight))
            with model.autocast():
                add(f"{name}, v = {weight:g}", found(model, [text(example) for example in data.test]))
    if find_spec("bm25s") is not None:
        words = [words_of_query(data.task, example) for example in data.test]
        add("BM25", index_words(data.task, data.base).search(words, max(CUTOFFS)).row.tolist())
    Console(width=110).print(table)


def found(model: RagModel, queries: list[str]) -> list[list[int]]:
    """Rows of the best passages of each query, best first."""
    rows: list[list[int]] = []
    with inference(model):
        for start in range(0, len(queries), BATCH):
            rows += model.index.search(
                model.retriever.queries(queries[start : start + BATCH]), max(CUTOFFS)
            ).row.tolist()
    return rows


if __name__ == "__main__":
    main()
