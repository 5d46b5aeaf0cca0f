"""The demonstration: no retrieval, a frozen retriever, and joint training, on the same data and for the same epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.evaluate import Evaluation
from retrograd.evaluation.kept_neighbours import KeptNeighbours, find_neighbours, read_neighbours, sample_examples
from retrograd.experiments.controls import Control, closed_book, frozen_retriever
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_untrained
from retrograd.experiments.run import train_and_score
from retrograd.rag.rag_model import RagModel
from retrograd.recipes.quickstart import semeval_joint
from retrograd.report.run_page import save_run_page
from retrograd.studies.report_page import SystemTable, build_page
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.tracker import LogLine
from retrograd.util.files import unused_folder

__all__ = ["run_demo"]

_ROWS: tuple[tuple[str, str, Control], ...] = (
    ("jointly trained", "semeval-joint", lambda experiment: experiment),
    ("frozen retriever", "semeval-frozen", frozen_retriever),
    ("no retrieval", "semeval-no-retrieval", closed_book),
)
"""The systems in the order of their training, with their folders; the table has them the other way round."""

_SETTINGS = ["data.train_count=800", "retriever.separate_towers=true", "warm_start.learning_rate=3e-4"]
_SETTINGS += ["training.passages=3", "evaluation.scoring=tree"]
"""Changes of the recipe, of which the two others are controls, that make minutes of a quarter of an hour: fewer
sentences and passages, passages that are embedded once because only the query tower learns, and labels that are scored
only where they part."""


@dataclass(frozen=True)
class _Row:
    """One trained system and its scores."""

    name: str
    run: Path
    evaluation: Evaluation
    seconds: float


def run_demo(out: Path, seed: int, changes: list[str] | None = None) -> list[_Row]:
    """Train the three systems; print one query's neighbours as soon as the retriever has learned, then the scores and
    the next commands, and write the page of the jointly trained one.

    ``changes`` are ``section.setting=value`` assignments for the first, of which the other two are controls. An
    existing ``out`` is left alone and a numbered folder beside it is used. Returns the systems in the order of the
    table.
    """
    console = Console(soft_wrap=True)
    folder = unused_folder(out)
    recipe = replace(semeval_joint(), seed=seed).with_settings([*_SETTINGS, *(changes or [])])
    experiments = [(name, replace(control(recipe), name=folder_name)) for name, folder_name, control in _ROWS]
    data = experiments[0][1].data.load(seed)
    console.print(_introduction(data, experiments[0][1]), highlight=False)
    began = time.perf_counter()
    rows = [_train(console, name, experiment, data, folder / experiment.name) for name, experiment in experiments][::-1]
    joint = rows[-1].run
    page, record = build_page(joint, [row.run for row in rows[:-1]])
    path = save_run_page(page, joint / "report")
    if record is not None:
        record.save(joint / "report")
    if page.systems is not None:
        _print_table(console, rows, page.systems)
    console.print(
        f"\nAll of it took {time.perf_counter() - began:.0f} s. Look at the page: {path}\nNext:\n"
        f"  retrograd serve {joint}   # an explorer of it in your browser\n"
        f"  retrograd search {joint} 'The <e1>kettle</e1> was full of <e2>tea</e2>.'\n"
        f"  retrograd show semeval-joint > mine.toml   # then put your own data into it",
        highlight=False,
        markup=False,
    )
    return rows


def _introduction(data: Data, experiment: Experiment) -> str:
    return (
        f"SemEval-2010 Task 8: which of {len(data.task.choices or ())} relations holds between two marked nouns?\n"
        f"{len(data.train)} labelled sentences are training data and knowledge base at once; {len(data.test)} official "
        f"test sentences are the test.\nThree systems, the same generator, the same number of epochs; those that "
        f"retrieve read {experiment.training.passages} sentences.\nFirst the one whose retriever learns: "
        f"{experiment.warm_start.epochs} epochs alone, then with the generator.\n"
    )


def _train(console: Console, name: str, experiment: Experiment, data: Data, out: Path) -> _Row:
    console.print(Text(name, style="bold"), highlight=False)
    model = open_untrained(experiment, data)
    tracker = _WarmStartEnd(console, model, data, RunDirectory(out, is_writer=False))
    scored = train_and_score(experiment, data, out, model=model, trackers={"neighbours": tracker})
    return _Row(name, out, scored.required_evaluation, scored.seconds)


def _print_table(console: Console, rows: Sequence[_Row], systems: SystemTable) -> None:
    """Print the scores of the three systems, and those that the page has besides: the vote and the trivial answer."""
    table = Table(title="SemEval-2010 Task 8, official test", title_justify="left")
    table.add_column("system")
    for heading in ("macro-F1", "neighbour match @1", "@5", "training"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        neighbours = row.evaluation.neighbours
        matches = [f"{neighbours[name]:.1f} %" for name in ("precision@1", "precision@5") if name in neighbours]
        score = f"{row.evaluation.answers['macro_f1']:.1f}"
        table.add_row(row.name, score, *(matches or ["", ""]), f"{row.seconds:.0f} s")
    table.add_section()
    for line in systems.lines:
        if line.kind in ("vote", "trivial"):
            table.add_row(Text(line.name), f"{line.score:.1f}")
    console.print(table)
    console.print(
        "macro-F1: the official score, nine relations with direction. Neighbour match: the share of the best 1 or 5\n"
        "retrieved sentences that bear the right relation. kNN vote: no generator, every sentence votes with p(z|x)."
    )
    for row, line in [(row, line) for row in rows for line in systems.lines if line.name == row.run.name]:
        if line.gain is not None and line.test is not None:
            console.print(
                f"{rows[-1].name} against {row.name}: {line.gain.difference:+.1f} [{line.gain.low:+.1f}, "
                f"{line.gain.high:+.1f}] macro-F1 (95 % interval, paired by sentence), p = {line.test.p_value:.3f}",
                highlight=False,
                markup=False,
            )


# ---- neighbours before and after the warm start ---------------------------------------------------------------------


@dataclass(frozen=True)
class _WarmStartEnd:
    """A tracker that prints one query's neighbours at the end of the warm start, beside those of the untrained
    retriever, which the run has kept.
    """

    console: Console
    model: RagModel
    data: Data
    run: RunDirectory

    def log(self, line: LogLine) -> None:
        """Print at the last step of the warm start."""
        if line.stage == "warm start" and line.step == line.steps and "loss" in line.values:
            before = read_neighbours(self.run.neighbours("before"))
            after = find_neighbours(self.model, sample_examples(self.data.test))
            _print_neighbours(self.console, before, after, self.data)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Do nothing: the scores stand in the table."""


def _print_neighbours(
    console: Console, before: Sequence[KeptNeighbours], after: Sequence[KeptNeighbours], data: Data
) -> None:
    """Print the first kept sentence without a right neighbour before training and at least three after it."""
    right_before, right_after = ([sum(one.supports) for one in kept] for kept in (before, after))
    gains = [b - a for a, b in zip(right_before, right_after, strict=True)]
    changed = [place for place, count in enumerate(right_before) if count == 0 and right_after[place] >= 3]
    place = changed[0] if changed else gains.index(max(gains))
    nearest_right = [sum(one.supports[:1]) for one in before], [sum(one.supports[:1]) for one in after]
    console.print(
        f"\nThe retriever has learned alone: of {len(before)} test sentences the nearest neighbour was right for "
        f"{sum(nearest_right[0])}, now for {sum(nearest_right[1])}.\nOne whose neighbours changed (chosen for that):\n",
        highlight=False,
    )
    target = before[place].gold[0]
    console.print(f"  {before[place].query}\n  right relation: {target}", highlight=False, markup=False)
    for name, kept in (("before", before[place]), ("after", after[place])):
        console.print(f"\n  nearest, {name}:", highlight=False)
        for passage, is_right in zip(data.base.passages(kept.rows[:3]), kept.supports, strict=False):
            mark = "+" if is_right else "-"
            console.print(f"   {mark} [{passage.title}] {passage.text}", highlight=False, markup=False)
    console.print("")
