"""Two finished runs on the same test data: the difference of their official scores, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrograd.io import read_jsonl
from retrograd.metrics.relation_resampling import semeval_resampler, tacred_resampler
from retrograd.metrics.relations import (
    PrecisionRecallF1,
    RelationTable,
    relation_table,
    semeval_score,
)
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    Statistic,
    paired_bootstrap_corpus,
    paired_permutation_corpus,
)
from retrograd.recipes.data import load_data
from retrograd.recipes.experiment import Experiment
from retrograd.recipes.run import saved_task
from retrograd.tasks.relation_extraction import RelationExtraction
from retrograd.training.run_directory import RunDirectory
from retrograd.types import UserError

__all__ = ["Comparison", "RelationGain", "compare"]


@dataclass(frozen=True)
class RelationGain:
    """One relation: F1 in percent of both runs, and how many test items bear it."""

    relation: str
    baseline: float
    system: float
    items: int


@dataclass(frozen=True)
class Comparison:
    """Scores in percent by the official ``metric``; ``agreement`` counts items that both, one or neither got right."""

    metric: str
    scores: tuple[float, float]
    interval: BootstrapInterval
    test: PermutationTest
    agreement: dict[str, int]
    relations: list[RelationGain]


def compare(baseline: Path, system: Path, resamples: int = 1_000, seed: int = 0) -> Comparison:
    """``system`` less ``baseline``, paired by test item. Opens no model; reads the data that each run names.

    Raises `UserError` for a folder without predictions, other test items or gold labels, and another metric.
    """
    first, second = _answers(baseline), _answers(system)
    task = first.task
    for what in ("metric", "negative"):
        ours, theirs = vars(task)[what], vars(second.task)[what]
        if ours != theirs:
            raise UserError(f"{what} is {ours!r} in {baseline}, {theirs!r} in {system}; compare runs scored alike")
    if first.gold.keys() != second.gold.keys():
        odd = _odd(first.gold, second.gold)
        raise UserError(f"{baseline} and {system} answered other test items ({odd!r} is in one of them alone)")
    for item, (text, relation) in first.gold.items():
        other_text, other = second.gold[item]
        if text != other_text:
            raise UserError(f"item {item!r} is {text!r} in {baseline}, {other_text!r} in {system}")
        if relation != other:
            raise UserError(f"item {item!r} is {relation!r} in {baseline}, {other!r} in {system}")
    wanted = [relation for _, relation in first.gold.values()]
    answers = [first.told[item] for item in first.gold], [second.told[item] for item in first.gold]
    statistic = _statistic(task, [*wanted, *wanted], [*answers[0], *answers[1]])
    items, rng = np.arange(len(wanted)), np.random.default_rng(seed)
    return Comparison(
        metric=task.primary_metric,
        scores=(statistic(items), statistic(items + len(items))),
        interval=paired_bootstrap_corpus(statistic, len(items), rng, resamples),
        test=paired_permutation_corpus(statistic, len(items), rng, resamples),
        agreement=_agreement(wanted, *answers),
        relations=_gains(task, wanted, *answers),
    )


@dataclass(frozen=True)
class _Answers:
    """The task of a run; by test item its marked text and gold relation, and the relation that was told."""

    task: RelationExtraction
    gold: dict[str, tuple[str, str]]
    told: dict[str, str | None]


def _answers(path: Path) -> _Answers:
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    task = saved_task(experiment, run)
    file = path / "predictions.jsonl"
    if not experiment.data.test:
        raise UserError(f"{path} has no test data of its own (data.test), so it has no scores to compare")
    if not file.exists():
        raise UserError(f"{path} has no predictions; score it with: retrograd evaluate {path} --out {path}")
    examples = {example.id: example for example in load_data(experiment.data, experiment.seed, task).test}
    told = _told(file)
    if examples.keys() != told.keys():
        odd = _odd(examples, told)
        raise UserError(
            f"{file} and {experiment.data.test} hold other items ({odd!r} is in one of them alone); have the data "
            f"changed since? Train again"
        )
    gold = {
        item: (example.query, task.relation_of(example.target, example) or example.target)
        for item, example in examples.items()
    }
    return _Answers(task, gold, {item: task.relation_of(told[item], one) for item, one in examples.items()})


def _told(file: Path) -> dict[str, str]:
    """Answers by item. Raises `UserError` with file and line for a record without them."""
    told: dict[str, str] = {}
    for number, record in read_jsonl(file):
        if not {"id", "answer"} <= record.keys():
            raise UserError(f'{file}, line {number}: expected "id" and "answer", as `retrograd evaluate` writes them')
        told[str(record["id"])] = str(record["answer"])
    return told


def _odd(first: Collection[str], second: Collection[str]) -> str:
    """An item of one alone."""
    return min(set(first) ^ set(second))


def _statistic(task: RelationExtraction, gold: list[str], answers: list[str | None]) -> Statistic:
    """The official score of any rows."""
    if task.metric == "semeval":
        return semeval_resampler(gold, answers)
    if task.metric == "micro":
        return tacred_resampler(gold, answers, task.negative)
    return lambda rows: relation_table([gold[i] for i in rows], [answers[i] for i in rows], task.negative).macro.f1


def _agreement(gold: Sequence[str], first: Sequence[str | None], second: Sequence[str | None]) -> dict[str, int]:
    right = [(a == g, b == g) for g, a, b in zip(gold, first, second, strict=True)]
    names = {
        (True, True): "both",
        (True, False): "baseline alone",
        (False, True): "system alone",
        (False, False): "none",
    }
    return {name: right.count(pair) for pair, name in names.items()}


def _gains(
    task: RelationExtraction, gold: Sequence[str], first: Sequence[str | None], second: Sequence[str | None]
) -> list[RelationGain]:
    """By relation, largest gain first."""
    before, after = (_table(task, gold, answers).relations for answers in (first, second))
    nothing = PrecisionRecallF1(0, 0, 0)
    gains: list[RelationGain] = []
    for name in {**before, **after}:
        a, b = before.get(name, nothing), after.get(name, nothing)
        gains.append(RelationGain(name, a.f1, b.f1, max(a.gold, b.gold)))
    return sorted(gains, key=lambda gain: gain.baseline - gain.system)


def _table(task: RelationExtraction, gold: Sequence[str], answers: Sequence[str | None]) -> RelationTable:
    if task.metric == "semeval":
        return semeval_score(gold, answers).official.table
    return relation_table(gold, answers, task.negative)
