"""An analysis of what a run retrieves: its neighbours, compared with chance."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float

from retrograd.data.relations.instance import entity_types, unmark
from retrograd.evaluation.concentration import (
    Distribution,
    Slots,
    Usage,
    effective_number,
    measure_usage,
    perplexity,
)
from retrograd.evaluation.neighbours import Agreement, Instance, Matches, Retrieved, agreement, match
from retrograd.evaluation.retrieval import retrieve, soft_slots
from retrograd.experiments.data.source import relation_extraction
from retrograd.experiments.open import OpenRun, open_run
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, UserError
from retrograd.util.text_files import write_json

__all__ = [
    "AnalysisReport",
    "AtK",
    "Hub",
    "Neighbour",
    "QueryStory",
    "Split",
    "analyse_run",
    "draw_stratified",
]

Split = Literal["test", "dev", "train"]
_HUBS = 10
_STORIES = 5


@dataclass(frozen=True)
class Hub:
    """An instance that many queries retrieve."""

    id: str
    label: str
    text: str
    times: int


@dataclass(frozen=True)
class AtK:
    """The figures of the k best instances of each query.

    ``base`` and ``types`` hold `Agreement` by group of queries ("all", "positive", "negative") against blind draws from
    the whole base and from the query's pair of types. The arrays have one number per query that retrieved anything.
    """

    k: int
    base: dict[str, list[Agreement]]
    types: dict[str, list[Agreement]]
    effective: Float[np.ndarray, " Q"]
    perplexity: Float[np.ndarray, " Q"]
    top: Float[np.ndarray, " Q"]
    mass: Float[np.ndarray, " Q"]
    usage: Usage
    hubs: list[Hub]


@dataclass(frozen=True)
class Neighbour:
    """A retrieved instance with its weight among the k."""

    weight: float
    label: str
    text: str
    same_label: bool
    shared_entity: bool


@dataclass(frozen=True)
class QueryStory:
    """A query with its neighbours; ``weight`` is the weight on instances of its own label."""

    id: str
    label: str
    text: str
    weight: float
    neighbours: list[Neighbour]


@dataclass(frozen=True)
class AnalysisReport:
    """The analysis of one run. ``notes`` are sentences on the conditions that a reader must know."""

    name: str
    split: str
    queries: int
    base_size: int
    notes: list[str]
    at: list[AtK]
    entropy: Float[np.ndarray, " Q"]
    slots: Slots | None
    best: list[QueryStory]
    worst: list[QueryStory]

    def record(self) -> dict[str, object]:
        """Return the analysis as JSON."""
        return {
            "name": self.name,
            "split": self.split,
            "queries": self.queries,
            "instances": self.base_size,
            "notes": list(self.notes),
            "prior_entropy": asdict(Distribution.of(self.entropy)),
            "at": [_at_record(at) for at in self.at],
            "slots": None if self.slots is None else asdict(self.slots),
            "best": [asdict(story) for story in self.best],
            "worst": [asdict(story) for story in self.worst],
        }

    def save(self, folder: Path) -> None:
        """Write ``analysis.json``."""
        write_json(folder / "analysis.json", self.record())


def _at_record(at: AtK) -> dict[str, object]:
    numbers = {"effective": at.effective, "perplexity": at.perplexity, "top": at.top, "mass": at.mass}
    used = {
        "effective": at.usage.effective,
        "gini": at.usage.gini,
        "top10_share": at.usage.top10_share,
        "never_share": at.usage.never_share,
        "random_never_share": at.usage.random_never_share,
    }
    return {
        "k": at.k,
        "against_base": {group: [_agreement_record(line) for line in lines] for group, lines in at.base.items()},
        "against_types": {group: [_agreement_record(line) for line in lines] for group, lines in at.types.items()},
        "weights": {name: asdict(Distribution.of(values)) for name, values in numbers.items()},
        "usage": used,
        "hubs": [asdict(hub) for hub in at.hubs],
    }


def _agreement_record(line: Agreement) -> dict[str, object]:
    lifts: dict[str, object] = {
        "weight_lift": line.weight_lift,
        "share_lift": line.share_lift,
        "any_lift": line.any_lift,
    }
    return {**asdict(line), **lifts}


def analyse_run(run: Path, split: Split, limit: int, ks: Sequence[int], out: Path, seed: int = 0) -> AnalysisReport:
    """Analyse what a finished run retrieves for one of its data sets; writes ``analysis.json`` into ``out``.

    ``limit`` draws so many queries, stratified by label (0: all). ``ks`` are the numbers of neighbours looked at (none:
    the run's own at test time); pictures and stories are of the first. Raises `UserError` for a run that retrieves
    nothing, and for data that are not there or carry no labels.
    """
    opened = open_run(run)
    requested_ks = list(ks) or [opened.experiment.test_passages]
    if requested_ks == [0]:
        raise UserError(
            f"{opened.experiment.name} retrieves nothing (0 passages at test time); give -k 5, say, to see what its "
            f"retriever would find"
        )
    examples = _examples(opened, split, run)
    labels = [example.target for example in examples]
    if 0 < limit < len(examples):
        examples = [examples[i] for i in draw_stratified(labels, limit, random.Random(seed))]
    report = _analyse_neighbours(opened, split, examples, requested_ks)
    report.save(out)
    return report


def _examples(opened: OpenRun, split: Split, run: Path) -> list[Example]:
    examples = {"test": opened.data.test, "dev": opened.data.dev, "train": opened.data.train}[split]
    if not examples:
        raise UserError(f"{run} has no {split} data; choose another part with --split test, dev or train")
    for example in examples:
        if not example.targets:
            raise UserError(
                f"the {split} data of {run}, instance {example.id!r}: no relation, so nothing tells whether its "
                f"neighbours share it; choose labelled data with --split"
            )
    return examples


def draw_stratified(labels: Sequence[str], count: int, rng: random.Random) -> list[int]:
    """Return ``count`` positions in ascending order; each label's number differs from its share by less than 1.

    Systematic sampling from the positions sorted by label, in random order within a label, with a random start.
    """
    order = list(range(len(labels)))
    rng.shuffle(order)
    order.sort(key=lambda position: labels[position])
    start = rng.random()
    return sorted(order[math.floor((i + start) * len(labels) / count)] for i in range(count))


def _analyse_neighbours(opened: OpenRun, split: Split, examples: list[Example], ks: list[int]) -> AnalysisReport:
    model, size = opened.model, len(opened.model.base)
    task = relation_extraction(opened.task, "analyse")
    usable_ks = list(dict.fromkeys(min(k, size) for k in ks))
    retrieved = retrieve(model, examples, max(usable_ks))
    read_count, selection = min(opened.experiment.test_passages, size), model.answering.selection
    slots = None if selection is None else soft_slots(model, selection, examples, read_count)
    passages = list(model.base)
    types = {(example.id, example.query): _types(example) for example in opened.data.train}
    instances = [_of_passage(task, passage, types.get((passage.id, passage.text))) for passage in passages]
    queries = [_of_example(task, example) for example in examples]
    matches = match(queries, instances, retrieved)
    is_present = matches.present[:, 0]
    if not is_present.any():
        raise UserError(
            f"none of the {len(examples)} queries may retrieve anything: every instance of the base has their own text"
        )
    groups = _groups(task, queries)
    at = [_at(matches, retrieved, groups, k, instances, passages) for k in usable_ks]
    best, worst = _stories(examples, queries, instances, passages, retrieved, matches, usable_ks[0], groups)
    notes = _notes(task, ks, size, queries, instances, matches, retrieved, split)
    entropy = retrieved.entropy[is_present]
    return AnalysisReport(opened.experiment.name, split, len(examples), size, notes, at, entropy, slots, best, worst)


# ---- instances ----------------------------------------------------------------------------------------------------


def _of_example(task: RelationExtraction, example: Example) -> Instance:
    text, head, tail = unmark(example.query)
    label = task.gold_label(example) or example.target
    return Instance(label, head.of(text), tail.of(text), _types(example))


def _of_passage(task: RelationExtraction, passage: Passage, types: tuple[str, str] | None) -> Instance:
    text, head, tail = unmark(passage.text)
    return Instance(task.relation_of(passage.title) or passage.title, head.of(text), tail.of(text), types)


def _types(example: Example) -> tuple[str, str] | None:
    """Return both entity types, where the data name both."""
    types = entity_types(example)
    return types if types is not None and all(types) else None


def _groups(task: RelationExtraction, queries: Sequence[Instance]) -> dict[str, Bool[np.ndarray, " Q"]]:
    """Return all queries and, where the task has a negative label, those with and without a relation."""
    all_queries = np.ones(len(queries), dtype=bool)
    if task.negative is None:
        return {"all": all_queries}
    positive = np.array([query.label != task.negative for query in queries])
    return {"all": all_queries, "positive": positive, "negative": ~positive}


# ---- figures ------------------------------------------------------------------------------------------------------


def _at(
    matches: Matches,
    retrieved: Retrieved,
    groups: dict[str, Bool[np.ndarray, " Q"]],
    k: int,
    instances: Sequence[Instance],
    passages: Sequence[Passage],
) -> AtK:
    weight = retrieved.weight(k)
    is_present = matches.present[:, 0]
    used = measure_usage(retrieved.rows[:, :k], retrieved.own_rows, len(instances))
    return AtK(
        k=k,
        base={name: agreement(matches, weight, k, among) for name, among in groups.items()},
        types={name: agreement(matches, weight, k, among, "types") for name, among in groups.items()},
        effective=effective_number(weight[is_present]),
        perplexity=perplexity(weight[is_present]),
        top=weight[is_present, 0],
        mass=retrieved.probability[is_present, :k].sum(axis=1),
        usage=used,
        hubs=[
            Hub(passages[row].id, instances[row].label, passages[row].text, times) for row, times in used.hubs(_HUBS)
        ],
    )


def _stories(
    examples: Sequence[Example],
    queries: Sequence[Instance],
    instances: Sequence[Instance],
    passages: Sequence[Passage],
    retrieved: Retrieved,
    matches: Matches,
    k: int,
    groups: dict[str, Bool[np.ndarray, " Q"]],
) -> tuple[list[QueryStory], list[QueryStory]]:
    """Return the queries with the most and the least weight on their own label, among those whose label the base has.

    Of equal ones those come first whose k best hold the most of p(z|x): the most certain, right or wrong. Where the
    task has a negative label, queries with a relation are described, if there are any.
    """
    weight = retrieved.weight(k)
    right = (weight * matches.shared[:, :k, 0]).sum(axis=1)
    mass = retrieved.probability[:, :k].sum(axis=1)
    possible = matches.present[:, 0] & (matches.support[:, 0] > 0)
    positive = possible & groups.get("positive", possible)
    chosen = np.flatnonzero(positive if positive.any() else possible)

    def story(q: int) -> QueryStory:
        neighbours = [
            Neighbour(
                float(weight[q, rank]),
                instances[row].label,
                passages[row].text,
                bool(matches.shared[q, rank, 0]),
                bool(matches.shared[q, rank, 2]),
            )
            for rank, row in enumerate(retrieved.rows[q, :k])
            if row >= 0
        ]
        return QueryStory(examples[q].id, queries[q].label, examples[q].query, float(right[q]), neighbours)

    best = sorted(chosen, key=lambda q: (-right[q], -mass[q]))[: min(_STORIES, (len(chosen) + 1) // 2)]
    worst = sorted(chosen, key=lambda q: (right[q], -mass[q]))[: min(_STORIES, len(chosen) // 2)]
    return [story(int(q)) for q in best], [story(int(q)) for q in worst]


def _notes(
    task: RelationExtraction,
    ks: Sequence[int],
    size: int,
    queries: Sequence[Instance],
    instances: Sequence[Instance],
    matches: Matches,
    retrieved: Retrieved,
    split: Split,
) -> list[str]:
    """Return notes for the reader: k cut down, types missing, queries left out, the null passage, own sentences."""
    notes = [f"k = {k} is more than the base holds; all {size} instances are taken." for k in ks if k > size]
    if split == "train":
        notes.append("The queries are the base's own instances; none retrieves its own text.")
    if any(len(rows) for rows in retrieved.own_rows) and split != "train":
        count = sum(len(rows) > 0 for rows in retrieved.own_rows)
        notes.append(f"{count} of the queries have a text of the base; they do not retrieve it.")
    typed = int((matches.typed_available > 0).sum())
    if not any(item.types for item in instances) or not any(item.types for item in queries):
        notes.append("The data name no entity types, so there is no comparison within a pair of types.")
    elif typed < len(queries):
        notes.append(f"{len(queries) - typed} of the queries have a pair of entity types that the base has not.")
    nothing = int((~matches.present[:, 0]).sum())
    if nothing:
        notes.append(f"{nothing} of the queries may retrieve nothing at all and are left out.")
    if task.negative is not None and all(query.label == task.negative for query in queries):
        notes.append(f"All queries have the negative label {task.negative!r}: there are no positives.")
    if retrieved.null.any():
        notes.append(
            f"Reading nothing is one of this model's choices and has {retrieved.null.mean():.1%} of p(z|x) on average; "
            f"weights below are among instances."
        )
    return notes
