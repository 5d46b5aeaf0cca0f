"""The record of a run's page: one for every kind of data, for a run that has ended and for one that is training.

What a kind of data or an unfinished run does not have is empty, and the page leaves it out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from retrograd.evaluation.confidence import Confidence
from retrograd.evaluation.evidence import metric_name
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import read_run_task
from retrograd.experiments.setting_changes import SettingChange, compare_with_recipe
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.studies.compare import LabelledRun, RunAnswers, read_run_answers, with_labels
from retrograd.studies.report import (
    RelationReport,
    RelationRow,
    System,
    name_runs,
    report_labelled,
)
from retrograd.studies.report_answers import AnswerReport, AnswerSystem, report_answers
from retrograd.studies.report_caveats import list_answer_caveats, list_relation_caveats
from retrograd.studies.report_confusions import ConfusionTable, tabulate_confusions
from retrograd.studies.report_log import Alarm, Chart, StageCost, read_log
from retrograd.studies.report_neighbours import (
    AnsweredExample,
    Hub,
    NeighbourSample,
    SupportedShare,
    list_hubs,
    read_sample,
)
from retrograd.studies.report_verdict import SystemLine, SystemTable, judge_run
from retrograd.studies.slices import SliceGroup
from retrograd.tasks.judging import judge_answers
from retrograd.training.run.run_directory import RunDirectory
from retrograd.util.text_files import read_json

__all__ = ["RunPage", "build_page", "build_progress_page"]

State = Literal["finished", "training", "not evaluated", "without test data"]


@dataclass(frozen=True)
class RunPage:
    """The contents of a run's page. ``verdict`` are its sentences, the result first; ``facts`` are short.

    ``changes`` are the settings that differ from ``compared_with``: the run's recipe, or the defaults.
    """

    name: str
    kind: str
    state: State
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    charts: tuple[Chart, ...]
    costs: tuple[StageCost, ...]
    alarms: tuple[Alarm, ...]
    staleness: Mapping[str, float]
    sample: NeighbourSample | None
    compared_with: str
    changes: tuple[SettingChange, ...]
    environment: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()
    systems: SystemTable | None = None
    retrieval: Mapping[str, float] | None = None
    relations: tuple[RelationRow, ...] = ()
    negative_row: RelationRow | None = None
    confusions: ConfusionTable | None = None
    slices: tuple[SliceGroup, ...] = ()
    hubs: tuple[Hub, ...] = ()
    confidence: Confidence | None = None


def build_page(
    path: Path, controls: Sequence[Path], with_vote: bool = True, resamples: int = 1_000
) -> tuple[RunPage, RelationReport | AnswerReport | None]:
    """Return the page of a run beside its ``controls``, and its report. Nothing is written.

    A run that has not ended, or has no test data, has no report. ``with_vote`` is as in `retrograd.studies.report`.
    Raises `UserError` as the reports do.
    """
    progress = build_progress_page(path)
    if progress.state != "finished":
        return replace(progress, verdict=(*progress.verdict, *_control_sentence(progress.state, controls))), None
    answers = read_run_answers(path)
    hubs = list_hubs(RunDirectory(path), answers.data.task)
    if answers.data.task.choices is not None:
        labelled = with_labels(answers)
        report = report_labelled(labelled, controls, with_vote, resamples)
        page = _add_relations(replace(progress, hubs=hubs), labelled, report)
        sample = read_sample(RunDirectory(path), answers.data.task, _answered_labels(labelled, answers))
    else:
        report = report_answers(answers, controls, resamples)
        page = _add_answers(replace(progress, hubs=hubs), report)
        sample = read_sample(RunDirectory(path), answers.data.task, _answered_texts(answers))
    return replace(page, sample=sample, verdict=(*page.verdict, *_neighbour_sentence(sample))), report


def build_progress_page(path: Path) -> RunPage:
    """Return what is known of a run without its answers, at any moment of its training; opens no model and no data."""
    run = RunDirectory.open(path)
    experiment = Experiment.load(run.experiment)
    log = read_log(run)
    state: State = "training"
    if run.has_ended and (path / "predictions.jsonl").exists():
        state = "finished"
    elif run.has_model:
        state = "not evaluated" if experiment.data.test else "without test data"
    has_task = run.labels.exists() and run.base.exists()
    sample = read_sample(run, read_run_task(experiment, run)) if has_task else None
    recipe, changes = compare_with_recipe(run, experiment)
    return RunPage(
        name=path.resolve().name,
        kind=experiment.data.kind,
        state=state,
        verdict=_progress_sentences(state, path, log.where, sample),
        facts=tuple(_facts(experiment, run, log.costs)),
        charts=log.charts,
        costs=log.costs,
        alarms=log.alarms,
        staleness=log.staleness,
        sample=sample,
        compared_with="the defaults" if recipe is None else f"the recipe {recipe}",
        changes=tuple(changes),
        environment=tuple(_environment(run)),
    )


# ---- parts of every page ------------------------------------------------------------------------------------------


def _progress_sentences(state: State, path: Path, where: str, sample: NeighbourSample | None) -> tuple[str, ...]:
    match state:
        case "finished":
            return ()
        case "without test data":
            return ("The run has ended. It has no test data, so nothing here says how good it is.",)
        case "not evaluated":
            name = path.resolve().name
            first = (
                f"The model is trained, but its answers to the test data are not scored. Unless the run is still doing "
                f"so, score them with: retrograd evaluate {name} --out {name}"
            )
        case "training":
            first = f"Training has not ended; last logged: {where}." if where else "Nothing is logged yet."
    return (first, *_neighbour_sentence(sample))


def _control_sentence(state: State, controls: Sequence[Path]) -> tuple[str, ...]:
    """Return what becomes of controls that were given for a run without scores."""
    if not controls:
        return ()
    names = ", ".join(name_runs(controls))
    if state == "without test data":
        return (f"Left out, as there are no test examples to compare on: {names}.",)
    return (f"Left out, as this run has no scores yet: {names}. Write the page again when it has.",)


def _neighbour_sentence(sample: NeighbourSample | None) -> tuple[str, ...]:
    """Return for how many examples the nearest passage supports the target, of those of which that can be said."""
    if sample is None:
        return ()
    before, after = sample.supported_before, sample.supported_after
    if before is not None and after is not None and before.examples == after.examples:
        shares = f"{_of(before)} before training, for {after.percent:.1f} % after"
    else:
        parts = [f"{_of(one)} {when} training" for one, when in ((before, "before"), (after, "after")) if one]
        shares = ", for ".join(parts)
    return (f"The nearest passage supports the target for {shares}.",) if shares else ()


def _of(share: SupportedShare) -> str:
    return f"{share.percent:.1f} % of {share.examples:,} sampled test examples"


def _facts(experiment: Experiment, run: RunDirectory, costs: Sequence[StageCost]) -> Iterator[tuple[str, str]]:
    yield "recipe", experiment.name
    yield "seed", str(experiment.seed)
    yield "objective", type(experiment.objective).__name__
    if run.base.exists():
        yield "passages in the base", f"{len(KnowledgeBase.open(run.base)):,}"
    yield "passages read", str(experiment.test_passages)
    if costs:
        yield "minutes of training", f"{sum(cost.seconds for cost in costs) / 60:.1f}"


def _environment(run: RunDirectory) -> Iterator[tuple[str, str]]:
    file = run.path / "environment.json"
    record = read_json(file) if file.exists() else None
    for name, value in (record if isinstance(record, dict) else {}).items():
        if isinstance(value, dict):
            text = ", ".join(
                f"{key} {part:.3g}" if isinstance(part, float) else f"{key} {part}" for key, part in value.items()
            )
        else:
            text = "" if value is None else str(value)
        if text:
            yield name.replace("_", " "), text


# ---- relations ----------------------------------------------------------------------------------------------------


def _add_relations(page: RunPage, run: LabelledRun, report: RelationReport) -> RunPage:
    negative = report.negative
    columns = ["precision", "recall", "accuracy"]
    columns += [] if negative is None else [f"F1 of {negative}", f"{negative} answered"]
    lines: list[SystemLine] = []
    for one in report.systems:
        own = [
            one.precision,
            one.recall,
            one.accuracy,
            *([] if negative is None else [one.negative_f1, one.negative_rate]),
        ]
        lines.append(_system_line(one, (*own, one.invalid_rate)))
    table = SystemTable(metric_name(report.metric), (*columns, "invalid"), tuple(lines))
    scores = RunDirectory(run.path).scores()
    return replace(
        page,
        verdict=judge_run(table, report.items),
        facts=_with_counts(page, report),
        systems=table,
        retrieval=scores["neighbours"],
        relations=tuple(report.relations),
        negative_row=report.negative_row,
        confusions=tabulate_confusions(list(run.gold.values()), list(run.answers.values())),
        slices=tuple(report.slices),
        notes=(*report.notes, *list_relation_caveats(report)),
        confidence=report.confidence,
    )


def _answered_labels(run: LabelledRun, answers: RunAnswers) -> dict[str, AnsweredExample]:
    return {
        item: AnsweredExample(gold, label or answers.answers[item], float(label == gold))
        for (item, gold), label in zip(run.gold.items(), run.answers.values(), strict=True)
    }


# ---- free answers -------------------------------------------------------------------------------------------------


def _add_answers(page: RunPage, report: AnswerReport) -> RunPage:
    columns = [name for name in report.run.scores if name != report.metric]
    lines = tuple(_system_line(one, [one.scores.get(name) for name in columns]) for one in report.systems)
    table = SystemTable(
        metric_name(report.metric), tuple(metric_name(name).replace("_", " ") for name in columns), lines
    )
    return replace(
        page,
        verdict=judge_run(table, report.items),
        facts=_with_counts(page, report),
        systems=table,
        retrieval=report.retrieval | {f"citations: {name}": value for name, value in report.citations.items()},
        slices=tuple(report.slices),
        notes=(*report.notes, *list_answer_caveats(report)),
        confidence=report.confidence,
    )


def _answered_texts(run: RunAnswers) -> dict[str, AnsweredExample]:
    examples = list(run.examples.values())
    judged = judge_answers(run.data.task, examples, list(run.answers.values()))
    return {
        example.id: AnsweredExample(" / ".join(example.targets), run.answers[example.id], correctness)
        for example, correctness in zip(examples, judged.correctness, strict=True)
    }


def _with_counts(page: RunPage, report: RelationReport | AnswerReport) -> tuple[tuple[str, str], ...]:
    counts = (("test examples", f"{report.items:,}"), ("training examples", f"{report.training:,}"))
    return (*page.facts[:3], *counts, *page.facts[3:])


def _system_line(system: System | AnswerSystem, values: Sequence[float | None]) -> SystemLine:
    return SystemLine(
        system.name,
        system.kind,
        system.score,
        system.interval,
        system.gain,
        system.test,
        tuple(values),
        tuple(system.changes),
        system.is_told,
    )
