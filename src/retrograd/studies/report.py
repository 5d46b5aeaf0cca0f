"""One finished run on one page: official score, confusions, trivial baseline, controls, slices.

Test labels are used for scoring alone. What slices know of relations (frequency, trigger words) is learned from the
run's training data.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from retrograd.evaluation.confidence import Confidence
from retrograd.evaluation.evaluate import vote
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.setting_changes import SettingChange, list_changes_for_others
from retrograd.metrics.breakdowns import Confusion, count_confusions
from retrograd.metrics.relations import MacroAverage, PrecisionRecallF1, relation_table
from retrograd.metrics.significance import BootstrapInterval, PermutationTest, ScoreInterval, bootstrap_corpus
from retrograd.studies.compare import (
    LabelledRun,
    build_official_table,
    compare_scores,
    read_confidence,
    read_labelled_run,
    require_same_items,
)
from retrograd.studies.slices import Learned, SliceGroup, slice_groups
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.tasks.relations.unseen_labels import count_unseen, describe_unseen
from retrograd.tasks.resampled_scores import label_statistic
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError
from retrograd.util.text_files import write_json

__all__ = [
    "Kind",
    "RelationReport",
    "RelationRow",
    "System",
    "is_told_answers",
    "name_runs",
    "report_labelled",
    "report_run",
]

VOTE = "kNN vote"
Answers = Sequence[str | None]
Kind = Literal["run", "control", "vote", "trivial"]


@dataclass(frozen=True)
class System:
    """One line of the comparison; scores and rates in percent.

    ``negative_f1`` is the F1 of the negative label, which no official score counts. ``gain`` and ``test`` are the run
    less this system, paired by item; None for the run itself, for the trivial answer and below two items. ``is_told``
    says whether its passages are chosen by the target at test time, as an oracle's are: a reference, and no rival.
    """

    name: str
    kind: Kind
    score: float
    precision: float
    recall: float
    accuracy: float
    negative_f1: float | None
    negative_rate: float | None
    invalid_rate: float
    interval: ScoreInterval | None = None
    gain: BootstrapInterval | None = None
    test: PermutationTest | None = None
    changes: list[SettingChange] = field(default_factory=list)
    is_told: bool = False


@dataclass(frozen=True)
class RelationRow:
    """A relation as the official scorer counts it, in percent of its ``items``."""

    relation: str
    items: int
    precision: float
    recall: float
    f1: float


@dataclass(frozen=True)
class RelationReport:
    """The contents of the page and more: ``confusions`` holds all pairs, ``learned`` what came from training data.

    ``systems`` are the run, its controls and the trivial answer; ``negative_share`` is that of the negative label
    among gold labels in percent, None without one. ``confidence`` is what the run's p(y|x) is worth; None where its
    predictions do not have it.
    """

    name: str
    recipe: str
    seed: int
    metric: str
    scorer: str
    items: int
    training: int
    passages: int
    negative: str | None
    negative_share: float | None
    resamples: int
    systems: list[System]
    relations: list[RelationRow]
    negative_row: RelationRow | None
    confusions: list[Confusion]
    slices: list[SliceGroup]
    learned: Learned
    notes: list[str]
    confidence: Confidence | None = None

    @property
    def run(self) -> System:
        """Return the run's own line."""
        return self.systems[0]

    def save(self, folder: Path) -> None:
        """Write ``report.json``."""
        write_json(folder / "report.json", asdict(self))


def report_run(
    path: Path, controls: Sequence[Path], out: Path, with_vote: bool = True, resamples: int = 1_000, seed: int = 0
) -> RelationReport:
    """Report a finished run beside its ``controls``; write ``report.json`` into ``out``.

    ``with_vote`` opens the model for the plain vote of its retriever; nothing else does. Raises `UserError` for a
    folder without predictions, and for a control with other test items, gold labels, label set or metric.
    """
    report = report_labelled(read_labelled_run(path), controls, with_vote, resamples, seed)
    report.save(out)
    return report


def report_labelled(
    run: LabelledRun,
    controls: Sequence[Path],
    with_vote: bool = True,
    resamples: int = 1_000,
    seed: int = 0,
) -> RelationReport:
    """Report a run that has been read, as `report_run` does, and write nothing."""
    names = name_runs([run.path, *controls])
    runs_by_control = {name: _control(run, control) for name, control in zip(names[1:], controls, strict=True)}
    notes = _notes(run)
    rivals: dict[str, Answers] = {
        name: [other.answers[item] for item in run.gold] for name, other in runs_by_control.items()
    }
    if with_vote and run.experiment.test_passages > 0:
        rivals[_unused_name(VOTE, names)] = _vote(run)
    elif with_vote:
        notes.append("The run retrieves nothing (0 passages at test time), so there is no vote of its neighbours.")
    else:
        notes.append("The vote of the run's neighbours was not asked for (--no-vote).")
    rng = np.random.default_rng(seed)
    learned = Learned.of(run)
    relations, negative_row = _relation_rows(run)
    return RelationReport(
        name=names[0],
        recipe=run.experiment.name,
        seed=run.experiment.seed,
        metric=run.task.primary_metric,
        scorer=run.task.metric,
        items=len(run.gold),
        training=len(run.data.train),
        passages=run.experiment.test_passages,
        negative=run.task.negative,
        negative_share=_share(list(run.gold.values()), run.task.negative),
        resamples=resamples,
        systems=_systems(run, names[0], runs_by_control, rivals, learned, rng, resamples),
        relations=relations,
        negative_row=negative_row,
        confusions=count_confusions(list(run.gold.values()), list(run.answers.values())),
        slices=slice_groups(run, learned, rivals, rng, resamples),
        learned=learned,
        notes=notes,
        confidence=read_confidence(run.path, run.data),
    )


def is_told_answers(experiment: Experiment) -> bool:
    """Return whether a run reads passages that were chosen by the target, at test time too: it is an oracle."""
    return experiment.retriever.search_kind.reads_target and experiment.test_passages > 0


def name_runs(paths: Sequence[Path]) -> list[str]:
    """Return the names of folders, with as many of the folders around them as tell them apart.

    Raises `UserError` for a run given twice.
    """
    parts: list[tuple[str, ...]] = []
    for path in paths:
        own = path.resolve().parts
        if own in parts:
            raise UserError(f"{path} is given twice; name each run once")
        parts.append(own)
    depth = 1
    while len({own[-depth:] for own in parts}) < len(parts):
        depth += 1
    return ["/".join(own[-depth:]) for own in parts]


def _unused_name(name: str, used: Sequence[str]) -> str:
    """Return a name that no run has."""
    return name if name not in used else _unused_name(f"{name} of the run", used)


def _control(run: LabelledRun, path: Path) -> LabelledRun:
    """Return a control that can be compared with the run."""
    other = read_labelled_run(path)
    require_same_items(run, other)
    if odd := sorted(run.task.phrases.keys() ^ other.task.phrases.keys()):
        raise UserError(
            f"{run.path} and {path} choose among other labels ({odd[0]!r} is in one of them alone); "
            f"give controls of the same label set"
        )
    return other


def _notes(run: LabelledRun) -> list[str]:
    """Return notes that a reader must know before the figures."""
    task, notes = run.task, []
    saved_score = RunDirectory(run.path).scores()["answers"].get(task.primary_metric)
    score = _score(task, list(run.gold.values()), list(run.answers.values()))
    if saved_score is not None and abs(saved_score - score) > 0.005:
        notes.append(
            f"scores.json says {task.primary_metric} {saved_score:.2f}, the predictions say {score:.2f}: predictions, "
            f"data or labels have changed since."
        )
    if unseen := count_unseen(run.data.test):
        notes.append(f"{describe_unseen(unseen, len(run.data.test))}.")
    if run.refined_rate > 0:
        notes.append(
            f"{run.refined_rate:.1f} % of the answers were no label as they stood, and were read as one by the rules "
            f"of refinement."
        )
    if task.negative is None:
        notes.append("The task has no negative label; the trivial answer is the most frequent training relation.")
    return notes


def _vote(run: LabelledRun) -> list[str | None]:
    opened = open_run(run.path)
    answers = vote(opened.model, run.data.test)
    return [run.task.relation_of(answer) for answer in answers]


# ---- systems ------------------------------------------------------------------------------------------------------


def _systems(
    run: LabelledRun,
    name: str,
    controls: Mapping[str, LabelledRun],
    rivals: Mapping[str, Answers],
    learned: Learned,
    rng: np.random.Generator,
    resamples: int,
) -> list[System]:
    """Return the run, its rivals and the trivial answer."""
    task, gold, run_answers = run.task, list(run.gold.values()), list(run.answers.values())
    own = _interval(task, gold, run_answers, rng, resamples)
    first = _system(task, name, "run", gold, run_answers, own, is_told=is_told_answers(run.experiment))
    lines = [first]
    for rival, answers in rivals.items():
        interval = _interval(task, gold, answers, rng, resamples)
        gain, test = compare_scores(task, gold, answers, run_answers, rng, resamples) if len(gold) > 1 else (None, None)
        control = controls.get(rival)
        changes = [] if control is None else list_changes_for_others(run.experiment, control.experiment)
        kind: Kind = "vote" if control is None else "control"
        is_told = is_told_answers((control or run).experiment)
        lines.append(_system(task, rival, kind, gold, answers, interval, gain, test, changes, is_told))
    trivial = task.negative or Counter(learned.frequency).most_common(1)[0][0]
    lines.append(_system(task, f"always {trivial}", "trivial", gold, [trivial] * len(gold)))
    return lines


def _system(
    task: RelationExtraction,
    name: str,
    kind: Kind,
    gold: Sequence[str],
    answers: Answers,
    interval: ScoreInterval | None = None,
    gain: BootstrapInterval | None = None,
    test: PermutationTest | None = None,
    changes: Sequence[SettingChange] = (),
    is_told: bool = False,
) -> System:
    average = _average(task, gold, answers)
    # The negative label's own F1 is over plain items, whatever the official scorer does with directions.
    plain = relation_table(gold, answers, task.negative)
    return System(
        name=name,
        kind=kind,
        score=average.f1,
        precision=average.precision,
        recall=average.recall,
        accuracy=100.0 * sum(a == g for a, g in zip(answers, gold, strict=True)) / len(gold),
        negative_f1=None if task.negative is None else plain.negative_scores.f1,
        negative_rate=_share(answers, task.negative),
        invalid_rate=100.0 * list(answers).count(None) / len(gold),
        interval=interval,
        gain=gain,
        test=test,
        changes=list(changes),
        is_told=is_told,
    )


def _average(task: RelationExtraction, gold: Sequence[str], answers: Answers) -> PrecisionRecallF1 | MacroAverage:
    table = build_official_table(task, gold, answers)
    return table.micro if task.metric == "micro" else table.macro


def _score(task: RelationExtraction, gold: Sequence[str], answers: Answers) -> float:
    return _average(task, gold, answers).f1


def _interval(
    task: RelationExtraction, gold: Sequence[str], answers: Answers, rng: np.random.Generator, resamples: int
) -> ScoreInterval | None:
    if len(gold) < 2:
        return None
    return bootstrap_corpus(label_statistic(task, gold, answers), len(gold), rng, resamples)


def _share(labels: Sequence[str | None], negative: str | None) -> float | None:
    """Return the percentage of the negative label; None without one."""
    return None if negative is None else 100.0 * list(labels).count(negative) / len(labels)


# ---- relations ----------------------------------------------------------------------------------------------------


def _relation_rows(run: LabelledRun) -> tuple[list[RelationRow], RelationRow | None]:
    """Return the relations with items, most frequent first, then those only answered; and the negative label."""
    table = build_official_table(run.task, list(run.gold.values()), list(run.answers.values()))
    rows = [_row(name, scores) for name, scores in table.relations.items()]
    negative = None if run.task.negative is None else _row(run.task.negative, table.negative_scores)
    return sorted(rows, key=lambda row: (-row.items, row.relation)), negative


def _row(name: str, scores: PrecisionRecallF1) -> RelationRow:
    return RelationRow(name, scores.gold, scores.precision, scores.recall, scores.f1)
