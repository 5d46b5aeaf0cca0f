"""The comparison of two finished runs on the same test data: the difference of their official scores and its tests."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast, get_args

import numpy as np

from retrograd.evaluation.confidence import Confidence, judge_own_answers, measure_confidence
from retrograd.evaluation.open_comparison import OpenComparison, compare_open
from retrograd.experiments.data.source import Data, relation_extraction
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import read_run_task
from retrograd.metrics.relations import PrecisionRecallF1, RelationTable
from retrograd.metrics.resampling import answer_resampler
from retrograd.metrics.significance import (
    BootstrapInterval,
    PermutationTest,
    Statistic,
    paired_bootstrap_corpus,
    paired_permutation_corpus,
)
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.relation_scores import official_table
from retrograd.tasks.resampled_scores import label_statistic
from retrograd.tasks.task import Task
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import ConfidenceKind, Example, Prediction, UserError
from retrograd.util.guards import JsonObject, finite_number
from retrograd.util.text_files import read_jsonl

__all__ = [
    "Comparison",
    "LabelledRun",
    "RelationGain",
    "RunAnswers",
    "build_official_table",
    "build_statistic",
    "compare",
    "compare_scores",
    "read_answers",
    "read_confidence",
    "read_labelled_run",
    "read_run_answers",
    "require_same_examples",
    "require_same_items",
    "with_labels",
]


@dataclass(frozen=True)
class RelationGain:
    """F1 of one relation in percent for both runs, and its number of test items."""

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


@dataclass(frozen=True)
class RunAnswers:
    """A finished run with its data and, by test item, the example and the answer as text."""

    path: Path
    experiment: Experiment
    data: Data
    examples: dict[str, Example]
    answers: dict[str, str]


@dataclass(frozen=True)
class LabelledRun:
    """A finished run with its data; by test item its marked text, the gold relation and the answered one, None where it
    is invalid. ``refined_rate`` is the percentage of answers that were labels only by the rules of refinement."""

    path: Path
    experiment: Experiment
    data: Data
    texts: dict[str, str]
    gold: dict[str, str]
    answers: dict[str, str | None]
    refined_rate: float

    @property
    def task(self) -> RelationExtraction:
        """Return the run's own task."""
        return relation_extraction(self.data.task, "compare")


def compare(baseline: Path, system: Path, resamples: int = 1_000, seed: int = 0) -> Comparison | OpenComparison:
    """Compare two runs, ``system`` less ``baseline``, paired by test item.

    Opens no model; reads the data that each run names.

    Raises `UserError` for a folder without predictions, other test items or gold answers, and another metric.
    """
    runs = read_run_answers(baseline), read_run_answers(system)
    if runs[0].data.task.choices is None:
        return _compare_open(*runs, resamples, seed)
    first, second = map(with_labels, runs)
    require_same_items(first, second)
    task, gold = first.task, list(first.gold.values())
    answers = list(first.answers.values()), [second.answers[item] for item in first.gold]
    interval, test = compare_scores(task, gold, *answers, np.random.default_rng(seed), resamples)
    score = label_statistic(task, [*gold, *gold], [*answers[0], *answers[1]])
    items = np.arange(len(gold))
    return Comparison(
        metric=task.primary_metric,
        scores=(score(items), score(items + len(items))),
        interval=interval,
        test=test,
        agreement=_agreement(gold, *answers),
        relations=_relation_gains(task, gold, *answers),
    )


def _compare_open(baseline: RunAnswers, system: RunAnswers, resamples: int, seed: int) -> OpenComparison:
    metric = require_same_examples(baseline, system)
    answers = list(baseline.answers.values()), [system.answers[item] for item in baseline.examples]
    rng = np.random.default_rng(seed)
    return compare_open(list(baseline.examples.values()), *answers, metric, rng, resamples)


def require_same_examples(baseline: RunAnswers, system: RunAnswers) -> str:
    """Return the metric of two runs with free answers.

    Raises `UserError` where they have another metric, or other test examples.
    """
    metrics = [run.data.task.primary_metric for run in (baseline, system)]
    if metrics[0] != metrics[1]:
        raise UserError(
            f"{baseline.path} is scored by {metrics[0]}, {system.path} by {metrics[1]}; compare runs scored alike"
        )
    _require_same_ids(baseline, system)
    for item, example in baseline.examples.items():
        other = system.examples[item]
        if (example.query, example.targets) != (other.query, other.targets):
            raise UserError(f"item {item!r} is another in {baseline.path} than in {system.path}")
    return metrics[0]


def compare_scores(
    task: RelationExtraction,
    gold: Sequence[str],
    baseline: Sequence[str | None],
    system: Sequence[str | None],
    rng: np.random.Generator,
    resamples: int,
) -> tuple[BootstrapInterval, PermutationTest]:
    """Return interval and p of the official score's difference, ``system`` less ``baseline``; all are in the same
    order.
    """
    statistic = label_statistic(task, [*gold, *gold], [*baseline, *system])
    interval = paired_bootstrap_corpus(statistic, len(gold), rng, resamples)
    return interval, paired_permutation_corpus(statistic, len(gold), rng, resamples)


def build_statistic(
    task: Task, examples: Sequence[Example], baseline: Sequence[str], system: Sequence[str]
) -> Statistic:
    """Return the task's primary score as a function of a selection of the answers of two systems to the same examples,
    to be resampled.
    """
    if task.choices is None:
        golds = [(example.target, *example.targets[1:]) for example in examples]
        return answer_resampler(task.primary_metric, [*golds, *golds], [*baseline, *system])
    extraction = relation_extraction(task, "report")
    gold = [extraction.gold_label(example) or example.target for example in examples]
    laid_out = zip([*baseline, *system], [*examples, *examples], strict=True)
    labels = [extraction.read_answer(answer, example).label for answer, example in laid_out]
    return label_statistic(extraction, [*gold, *gold], labels)


def read_run_answers(path: Path, data: Data | None = None) -> RunAnswers:
    """Return the answers of a run to its own test data, in their order.

    Opens no model. ``data`` are the run's, where they have been read already.

    Raises `UserError` for a folder that is no run, for one without test data or predictions, and for other items.
    """
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    file = path / "predictions.jsonl"
    if not experiment.data.test:
        raise UserError(f"{path} has no test data of its own (data.test is empty), so it has no answers to score")
    if not file.exists():
        raise UserError(f"{path} has no predictions; score it with: retrograd evaluate {path} --out {path}")
    data = data or experiment.data.load(experiment.seed, read_run_task(experiment, run))
    examples = {example.id: example for example in data.test}
    if len(examples) != len(data.test):
        raise UserError(f"{experiment.data.test} has ids that stand twice; answers are paired by id, give each its own")
    answers = read_answers(file)
    if examples.keys() != answers.keys():
        odd = _unshared_item(examples, answers)
        raise UserError(
            f"{file} and {experiment.data.test} hold other items ({odd!r} is in one of them alone); have the data "
            f"changed since? Train again"
        )
    return RunAnswers(path, experiment, data, examples, {item: answers[item] for item in examples})


def read_labelled_run(path: Path) -> LabelledRun:
    """Return the answers of a relation extraction run as labels. Raises `UserError` for another task."""
    return with_labels(read_run_answers(path))


def with_labels(run: RunAnswers) -> LabelledRun:
    """Return answers as labels. Raises `UserError` for a task without relations."""
    task = relation_extraction(run.data.task, "report")
    gold = {item: task.gold_label(example) or example.target for item, example in run.examples.items()}
    readings = {item: task.read_answer(run.answers[item], example) for item, example in run.examples.items()}
    answers = {item: example.label for item, example in readings.items()}
    refined = sum(example.label is not None and not example.is_exact for example in readings.values())
    texts = {item: example.query for item, example in run.examples.items()}
    return LabelledRun(
        run.path, run.experiment, run.data, texts, gold, answers, 100.0 * refined / max(len(readings), 1)
    )


def read_answers(file: Path) -> dict[str, str]:
    """Read answers by item. Raises `UserError` with file and line for a record without them."""
    answers: dict[str, str] = {}
    for number, record in read_jsonl(file):
        if not {"id", "answer"} <= record.keys():
            raise UserError(f'{file}, line {number}: expected "id" and "answer", as `retrograd evaluate` writes them')
        answers[str(record["id"])] = str(record["answer"])
    return answers


def read_confidence(path: Path, data: Data) -> Confidence | None:
    """Measure the confidence of a run's answers to its test data; None where ``predictions.jsonl`` does not have it.

    Opens no model; every test example has its prediction (`read_run_answers`).
    """
    examples = {example.id: example for example in data.test}
    predictions = [_read_prediction(record) for _, record in read_jsonl(path / "predictions.jsonl")]
    known = [prediction for prediction in predictions if prediction is not None]
    if not known or len(known) < len(predictions):
        return None
    answered = [examples[prediction.id] for prediction in known]
    return measure_confidence(judge_own_answers(data.task, answered, known), known)


def _read_prediction(record: JsonObject) -> Prediction | None:
    """Read what confidence needs of a prediction; None without its log-probability. Whether an answer was written is
    not known of predictions by versions that did not say so: those of a closed set are chosen."""
    log_probability = finite_number(record.get("log_probability"))
    if log_probability is None:
        return None
    withheld = record.get("withheld")
    named = str(record.get("confidence_is", "")).removeprefix("probability ")
    kind = cast(ConfidenceKind, named if named in get_args(ConfidenceKind) else "among permitted answers")
    return Prediction(
        str(record["id"]),
        str(record["answer"]),
        log_probability,
        confidence_kind=kind,
        withheld=None if withheld is None else str(withheld),
    )


def _unshared_item(first: Collection[str], second: Collection[str]) -> str:
    """Return an item that only one of two collections has."""
    return min(set(first) ^ set(second))


def _require_same_ids(first: RunAnswers | LabelledRun, second: RunAnswers | LabelledRun) -> None:
    if first.answers.keys() != second.answers.keys():
        odd = _unshared_item(first.answers, second.answers)
        raise UserError(f"{first.path} and {second.path} answered other test items ({odd!r} is in one of them alone)")


def require_same_items(first: LabelledRun, second: LabelledRun) -> None:
    """Raise `UserError` where two runs answered other test items, or have another metric, negative or gold labels."""
    compared = {
        "metric": (first.task.metric, second.task.metric),
        "negative": (first.task.negative, second.task.negative),
    }
    for name, (left, right) in compared.items():
        if left != right:
            raise UserError(
                f"{name} is {left!r} in {first.path}, {right!r} in {second.path}; compare runs scored alike"
            )
    _require_same_ids(first, second)
    for item, relation in first.gold.items():
        for left, right in ((first.texts[item], second.texts[item]), (relation, second.gold[item])):
            if left != right:
                raise UserError(f"item {item!r} is {left!r} in {first.path}, {right!r} in {second.path}")


def _agreement(gold: Sequence[str], first: Sequence[str | None], second: Sequence[str | None]) -> dict[str, int]:
    right = [(a == g, b == g) for g, a, b in zip(gold, first, second, strict=True)]
    names = {
        (True, True): "both",
        (True, False): "baseline alone",
        (False, True): "system alone",
        (False, False): "none",
    }
    return {name: right.count(pair) for pair, name in names.items()}


def _relation_gains(
    task: RelationExtraction, gold: Sequence[str], first: Sequence[str | None], second: Sequence[str | None]
) -> list[RelationGain]:
    """Return the gain of each relation, largest first."""
    before, after = (build_official_table(task, gold, answers).relations for answers in (first, second))
    nothing = PrecisionRecallF1(0, 0, 0)
    gains: list[RelationGain] = []
    for name in {**before, **after}:
        a, b = before.get(name, nothing), after.get(name, nothing)
        gains.append(RelationGain(name, a.f1, b.f1, max(a.gold, b.gold)))
    return sorted(gains, key=lambda gain: gain.baseline - gain.system)


def build_official_table(task: RelationExtraction, gold: Sequence[str], answers: Sequence[str | None]) -> RelationTable:
    """Return the scores by relation, as the task's official scorer counts; of SemEval the nine relations, with
    direction.
    """
    return official_table(task.metric, gold, answers, task.negative, task.phrases)
