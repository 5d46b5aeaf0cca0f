"""Two finished runs on the same test data: the difference of their official scores, and whether it could be chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int64

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
    """``system`` less ``baseline``, paired by test item. Opens no model; reads the test data that the baseline names.

    Raises `UserError` for a folder without predictions, other test items or gold labels, and another metric.
    """
    task, gold, first = _answers(baseline)
    other, other_gold, second = _answers(system)
    if task.metric != other.metric:
        raise UserError(
            f"{baseline} is scored by {task.metric}, {system} by {other.metric}; compare runs of one metric"
        )
    if gold.keys() != other_gold.keys():
        odd = sorted(gold.keys() ^ other_gold.keys())[0]
        raise UserError(f"{baseline} and {system} answered other test items ({odd!r} is in one of them alone)")
    for item, relation in gold.items():
        if other_gold[item] != relation:
            raise UserError(f"item {item!r} is {relation!r} in {baseline}, {other_gold[item]!r} in {system}")
    wanted = list(gold.values())
    answers = [first[item] for item in gold], [second[item] for item in gold]
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


def _answers(path: Path) -> tuple[RelationExtraction, dict[str, str], dict[str, str | None]]:
    """The task of a run, and by test item the gold relation and the answered one."""
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    task = saved_task(experiment, run)
    file = path / "predictions.jsonl"
    if not file.exists():
        raise UserError(f"{path} has no predictions; score it with: retrograd evaluate {path} --out FOLDER")
    examples = {example.id: example for example in load_data(experiment.data, experiment.seed, task).test}
    told = {str(record["id"]): str(record["answer"]) for _, record in read_jsonl(file)}
    if examples.keys() != told.keys():
        raise UserError(f"{file} answers {len(told)} items, not the {len(examples)} of {experiment.data.test}")
    gold = {item: task.relation_of(example.target, example) or example.target for item, example in examples.items()}
    return task, gold, {item: task.read_answer(told[item], example).label for item, example in examples.items()}


def _statistic(task: RelationExtraction, gold: list[str], answers: list[str | None]) -> Statistic:
    """The official score of any rows."""
    if task.metric == "semeval":
        return semeval_resampler(gold, answers)
    if task.metric == "micro" and task.negative is not None:
        return tacred_resampler(gold, answers, task.negative)

    def by_table(rows: Int64[np.ndarray, " rows"]) -> float:
        table = relation_table([gold[i] for i in rows], [answers[i] for i in rows], task.negative)
        return (table.micro if task.metric == "micro" else table.macro).f1

    return by_table


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
