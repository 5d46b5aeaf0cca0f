"""The demonstration: no retrieval, a frozen retriever, and joint training, on the same data and for the same epochs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from retrograd.evaluation.evaluate import Evaluation, vote
from retrograd.experiments.data.source import Data, relation_extraction
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import train_and_score
from retrograd.metrics.significance import paired_bootstrap_corpus
from retrograd.rag.rag_model import RagModel
from retrograd.recipes.quickstart import semeval_frozen, semeval_joint, semeval_no_retrieval
from retrograd.studies.compare import build_statistic
from retrograd.util.files import unused_folder

__all__ = ["run_demo"]

_ROWS: tuple[tuple[str, Callable[[], Experiment]], ...] = (
    ("no retrieval", semeval_no_retrieval),
    ("frozen retriever", semeval_frozen),
    ("jointly trained", semeval_joint),
)


@dataclass(frozen=True)
class _Row:
    """One trained system and its scores."""

    name: str
    experiment: Experiment
    model: RagModel
    evaluation: Evaluation
    seconds: float


def run_demo(out: Path, seed: int, changes: list[str] | None = None) -> list[_Row]:
    """Train the three systems; print their scores, one query before and after training, and the next commands.

    ``changes`` are ``section.setting=value`` assignments applied to all three. An existing ``out`` is left alone and a
    numbered folder beside it is used.
    """
    console = Console(soft_wrap=True)
    folder = unused_folder(out)
    experiments = [(name, replace(make(), seed=seed).with_settings(changes or [])) for name, make in _ROWS]
    data = experiments[0][1].data.load(seed)
    console.print(_introduction(data), highlight=False)
    began = time.perf_counter()
    rows = [_train(name, experiment, data, folder / experiment.name) for name, experiment in experiments]
    _print_table(console, rows, data)
    _print_neighbours(console, rows[1].model, rows[2].model, data)
    console.print(
        f"\nAll of it took {time.perf_counter() - began:.0f} s. The runs are in {folder}.\nNext:\n"
        f"  retrograd search {folder / 'semeval-joint'} 'The <e1>kettle</e1> was full of <e2>tea</e2>.'\n"
        f"  retrograd train semeval-jsa            # the same with a posterior retriever\n"
        f"  retrograd show semeval-joint > mine.toml   # then put your own data into it",
        highlight=False,
    )
    return rows


def _introduction(data: Data) -> str:
    return (
        f"SemEval-2010 Task 8: which of {len(data.task.choices or ())} relations holds between two marked nouns?\n"
        f"{len(data.train)} labelled sentences are training data and knowledge base at once; {len(data.test)} official "
        f"test sentences are the test.\nThree systems, the same generator, the same number of epochs:\n"
    )


def _train(name: str, experiment: Experiment, data: Data, out: Path) -> _Row:
    scored = train_and_score(experiment, data, out)
    return _Row(name, experiment, scored.model, scored.required_evaluation, scored.seconds)


def _print_table(console: Console, rows: list[_Row], data: Data) -> None:
    table = Table(title="SemEval-2010 Task 8, official test", title_justify="left")
    table.add_column("system")
    for heading in ("macro-F1", "neighbour match @1", "neighbour match @5", "training"):
        table.add_column(heading, justify="right")
    for row in rows:
        table.add_row(row.name, f"{row.evaluation.answers['macro_f1']:.1f}", *_matches(row), f"{row.seconds:.0f} s")
    table.add_section()
    for row in rows[1:]:
        voted = data.task.score(data.test, vote(row.model, data.test))
        table.add_row(f"kNN vote, {row.name}", f"{voted['macro_f1']:.1f}", *_matches(row), "")
    console.print(table)
    console.print(
        "macro-F1: the official score, nine relations with direction. Neighbour match: the share of the best 1 or 5\n"
        "retrieved sentences that bear the right relation. kNN vote: no generator, every sentence votes with p(z|x)."
    )
    joint = rows[-1]
    for other in rows[:-1]:
        console.print(f"{joint.name} against {other.name}: {_difference(other, joint, data)}", highlight=False)


def _matches(row: _Row) -> tuple[str, str]:
    scores = row.evaluation.neighbours
    return (f"{scores['precision@1']:.1f} %", f"{scores['precision@5']:.1f} %") if scores else ("", "")


def _difference(baseline: _Row, system: _Row, data: Data) -> str:
    """Return the paired bootstrap of the official score over the test sentences."""
    answers = [[prediction.answer for prediction in row.evaluation.predictions] for row in (baseline, system)]
    statistic = build_statistic(data.task, data.test, *answers)
    return str(paired_bootstrap_corpus(statistic, len(data.test), np.random.default_rng(0)))


@torch.no_grad()
def _print_neighbours(console: Console, before: RagModel, after: RagModel, data: Data) -> None:
    """Print the first test sentence without a right neighbour before training and at least three after it."""
    sample = data.test[:200]
    neighbours = [model.retrieve(sample, 5).rows for model in (before, after)]
    right = [model.supports(sample, rows).sum(dim=-1) for model, rows in zip((before, after), neighbours, strict=True)]
    changed = ((right[0] == 0) & (right[1] >= 3)).nonzero().flatten().tolist()
    position = changed[0] if changed else int((right[1] - right[0]).argmax())
    example = sample[position]
    console.print(
        f"\nA query whose neighbours changed (chosen for that):\n  {example.query}", highlight=False, markup=False
    )
    console.print(f"  right relation: {example.target}", highlight=False)
    relation_of = relation_extraction(data.task, "demo").relation_of
    relation = relation_of(example.target, example)
    for name, rows in zip(("frozen", "trained"), neighbours, strict=True):
        console.print(f"\n  nearest, {name} retriever:", highlight=False)
        for passage in data.base.passages([row for row in rows[position][:3].tolist() if row >= 0]):
            mark = "+" if relation_of(passage.title) == relation else "-"
            console.print(f"   {mark} [{passage.title}] {passage.text}", highlight=False, markup=False)
