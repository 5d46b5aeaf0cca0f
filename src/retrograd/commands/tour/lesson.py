"""The tour: a small retriever is trained on shipped sentences while the neighbours of five queries are shown.

Nothing is recorded: the sentences are drawn by the seed, the queries are the first of five different relations, and
what is shown is what the model finds at that step.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from retrograd.commands.tour.view import Look, Neighbour, QueryView, View, make_view
from retrograd.evaluation.open_retrieval import best_rows
from retrograd.experiments.data.source import Data, relation_extraction
from retrograd.experiments.open import open_untrained
from retrograd.experiments.run import train_experiment
from retrograd.models.compute.inference import inference
from retrograd.rag.rag_model import RagModel
from retrograd.recipes.quickstart import semeval_joint
from retrograd.training.refresh.fresh_index import embed_base_if_stale
from retrograd.training.tracking.tracker import LogLine
from retrograd.types import Example, UserError
from retrograd.util.files import unused_folder

__all__ = ["run_tour"]

_NEIGHBOURS = 3
_QUERIES = 5
_SETTINGS = ["data.train_count=512", "data.dev_from_train=200", "data.test=", "training.epochs=0"]
_SETTINGS += ["retriever.separate_towers=true", "warm_start.epochs=2", "warm_start.learning_rate=3e-4"]
_SETTINGS += ["training.log_every=8"]


@dataclass
class _Lesson:
    """A tracker that looks up neighbours after each line: of ``queries``, which are shown, and of all
    ``held_out`` sentences, of which the right share is counted.
    """

    model: RagModel
    held_out: Sequence[Example]
    queries: Sequence[Example]
    view: View

    def look(self) -> Look:
        """Return what the retriever finds now."""
        with inference(self.model):
            rows = best_rows(self.model, self.queries, _NEIGHBOURS)
            supported = self.model.supports(self.queries, rows).tolist()
        return Look(
            self._right_share(),
            [
                QueryView(query.query, query.target, self._neighbours(row, right))
                for query, row, right in zip(self.queries, rows.tolist(), supported, strict=True)
            ],
        )

    def _neighbours(self, rows: Sequence[int], supported: Sequence[bool]) -> list[Neighbour]:
        passages = self.model.base.passages(rows)
        return [Neighbour(one.title, one.text, right) for one, right in zip(passages, supported, strict=True)]

    def _right_share(self) -> float:
        right = 0
        with inference(self.model):
            for start in range(0, len(self.held_out), 64):
                batch = self.held_out[start : start + 64]
                right += int(self.model.supports(batch, best_rows(self.model, batch, 1)).sum())
        return right / len(self.held_out)

    def log(self, line: LogLine) -> None:
        """Look, unless the line is about something else than a step of training."""
        if "loss" in line.values:
            self.view.show_step(line.step, line.steps, self.look())

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Do nothing: `run_tour` ends the view."""


def run_tour(out: Path, seed: int, changes: list[str] | None = None, console: Console | None = None) -> Path:
    """Train a retriever while its neighbours are shown; print what happened and what to type next. Return the run.

    ``changes`` are ``section.setting=value`` assignments. An existing ``out`` is left alone and a numbered folder
    beside it is used. Raises `UserError` where ``changes`` leave nothing to show.
    """
    console = console or Console(soft_wrap=True)
    began = time.perf_counter()
    folder = unused_folder(out)
    experiment = replace(semeval_joint(), name="tour", seed=seed).with_settings([*_SETTINGS, *(changes or [])])
    data = experiment.data.load(seed)
    if not data.dev:
        raise UserError("data.dev_from_train is 0, but the tour shows sentences that are not trained on; set it to 200")
    console.print(_introduction(data), highlight=False, markup=False)
    model = open_untrained(experiment, data)
    embed_base_if_stale(model)
    queries = _different_relations(data)
    with make_view(console, len(data.dev)) as view:
        lesson = _Lesson(model, data.dev, queries, view)
        before = lesson.look()
        view.show_start(before)
        # The model is the caller's: an evaluation on development data would only have the untrained generator answer.
        train_experiment(experiment, replace(data, dev=[]), folder, model=model, trackers={"tour": lesson})
        after = lesson.look()
        view.show_end(after)
    ending = _ending(before.right_share, after.right_share, folder, time.perf_counter() - began)
    console.print(ending, highlight=False, markup=False)
    return folder


def _different_relations(data: Data) -> list[Example]:
    """Return the first held-out example of each of five relations, chosen before anything is found for them."""
    task = relation_extraction(data.task, "tour")
    first: dict[str, Example] = {}
    for example in data.dev:
        if example.target != task.negative_for(example):
            first.setdefault(example.target, example)
    return list(first.values())[:_QUERIES]


def _introduction(data: Data) -> str:
    return (
        f"{len(data.train)} sentences of SemEval-2010 Task 8 are the knowledge base. A retriever is to find, for a new "
        f"sentence,\nsentences in which the same relation holds between the two marked nouns. It learns now, from "
        f"labels of sentences\nalone: no one has told it which sentence is relevant to which.\n"
    )


def _ending(before: float, after: float, folder: Path, seconds: float) -> str:
    verb = "rose" if after > before else "fell" if after < before else "stayed"
    return (
        f"\nIn {seconds:.0f} s the share of new sentences whose nearest neighbour has the right relation {verb} from "
        f"{before:.0%} to {after:.0%}.\nThe gradient came from p(y|x) = Σ_z p(z|x) p(y|x,z) over all passages z. In "
        f"`retrograd demo` the generator that reads\nthem gives it; it compares no retrieval, a frozen and a trained "
        f"retriever.\nNext:\n"
        f"  retrograd demo\n"
        f"  retrograd search {folder} 'The <e1>kettle</e1> was full of <e2>tea</e2>.'\n"
        f"  retrograd show semeval-joint > mine.toml   # then put your own data into it"
    )
