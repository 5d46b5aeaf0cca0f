"""The record of a study's page: an experiment and its controls side by side, while they are trained and afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from retrograd.evaluation.evidence import Difference, format_spread, metric_name
from retrograd.experiments.setting_changes import SettingChange, list_changes_for_others
from retrograd.studies.report import is_told_answers
from retrograd.studies.report_log import Chart, TrainingLog, overlay_charts, read_log
from retrograd.studies.report_page import RunPage, build_progress_page
from retrograd.studies.study import EXPERIMENT, Study
from retrograd.studies.verdict import SECONDARY_METRICS, Verdict, weigh_study

__all__ = ["RunState", "StudyLine", "StudyPage", "build_study_page"]


@dataclass(frozen=True)
class StudyLine:
    """One system: its scores over seeds as text (mean ± standard deviation), and the experiment less it.

    ``mean`` is that of the primary score in percent; None until all runs have ended. ``minutes`` are those of training,
    over all seeds. ``changes`` are the settings in which it differs from the experiment; ``is_told`` says whether it is
    told the answer, a reference and no rival.
    """

    name: str
    mean: float | None
    scores: tuple[str, ...]
    difference: Difference | None
    minutes: float
    supported_before: float | None
    supported_after: float | None
    changes: tuple[SettingChange, ...]
    is_told: bool = False


@dataclass(frozen=True)
class RunState:
    """One run of a study, by the name of its folder, and how far it is."""

    name: str
    state: str
    where: str
    alarms: int


@dataclass(frozen=True)
class StudyPage:
    """The contents of a study's page. ``columns`` name the scores of the lines, the primary one first.

    ``charts`` have one line for each system, of the first seed. ``changes`` are the experiment's settings that differ
    from ``compared_with``.
    """

    name: str
    is_finished: bool
    verdict: tuple[str, ...]
    facts: tuple[tuple[str, str], ...]
    columns: tuple[str, ...]
    lines: tuple[StudyLine, ...]
    charts: tuple[Chart, ...]
    runs: tuple[RunState, ...]
    left_out: Mapping[str, str]
    compared_with: str
    changes: tuple[SettingChange, ...]
    environment: tuple[tuple[str, str], ...]
    notes: tuple[str, ...] = ()


def build_study_page(path: Path) -> tuple[StudyPage, Verdict | None]:
    """Return the page of a study, and its verdict, which is None until all of its runs have ended.

    Opens no model. Raises `UserError` for a folder that is no study, and as `weigh_study` does.
    """
    study = Study.open(path)
    begun = [run for run in study.runs if run.folder.experiment.exists()]
    pages = {run.path.name: build_progress_page(run.path) for run in begun}
    is_finished = all(run.folder.has_ended for run in study.runs)
    verdict = weigh_study(path) if is_finished else None
    seed, own = study.seeds[0], next(iter(pages.values()), None)
    logs: dict[str, TrainingLog] = {run.system: read_log(run.folder) for run in begun if run.experiment.seed == seed}
    experiment = study.systems[EXPERIMENT]
    page = StudyPage(
        name=path.resolve().name,
        is_finished=is_finished,
        verdict=_sentences(verdict),
        facts=(
            ("experiment", experiment.name),
            ("data", experiment.data.kind),
            ("systems", str(len(study.systems))),
            ("seeds", ", ".join(map(str, study.seeds))),
            ("runs that have ended", f"{sum(run.folder.has_ended for run in study.runs)} of {len(study.runs)}"),
        ),
        columns=_columns(verdict),
        lines=tuple(_line(study, name, verdict, pages) for name in study.systems),
        charts=overlay_charts(logs),
        runs=tuple(_state(run.path.name, pages.get(run.path.name)) for run in study.runs),
        left_out=study.left_out,
        compared_with="" if own is None else own.compared_with,
        changes=() if own is None else own.changes,
        environment=() if own is None else own.environment,
        notes=() if verdict is None else tuple(verdict.notes),
    )
    return page, verdict


def _sentences(verdict: Verdict | None) -> tuple[str, ...]:
    if verdict is None:
        return ("The study has not ended, so nothing can be said yet.",)
    sentence, main = verdict.evidence.sentence, verdict.evidence.main
    interval = f"95 % interval {main.interval.low:+.1f} to {main.interval.high:+.1f}"
    return (f"{sentence[:1].upper()}{sentence[1:]}. {interval}.",)


def _metrics(verdict: Verdict) -> list[str]:
    primary = verdict.evidence.metric
    others = [name for name in SECONDARY_METRICS if name != primary]
    return [primary, *(name for name in others if any(name in scores for scores in verdict.scores.values()))]


def _columns(verdict: Verdict | None) -> tuple[str, ...]:
    return () if verdict is None else tuple(map(metric_name, _metrics(verdict)))


def _line(study: Study, system: str, verdict: Verdict | None, pages: Mapping[str, RunPage]) -> StudyLine:
    runs = [run for run in study.runs if run.system == system]
    experiment = study.systems[EXPERIMENT]
    seconds = sum(cost.seconds for run in runs if run.path.name in pages for cost in pages[run.path.name].costs)
    samples = [
        page.sample for run in runs if (page := pages.get(run.path.name)) is not None and page.sample is not None
    ]
    before = [one.supported_before.percent for one in samples if one.supported_before is not None]
    after = [one.supported_after.percent for one in samples if one.supported_after is not None]
    scores = {} if verdict is None else verdict.scores[system]
    differences = [] if verdict is None else [one for one in verdict.evidence.differences if one.control == system]
    return StudyLine(
        name=study.systems[system].name if system == EXPERIMENT else system,
        mean=None if verdict is None else fmean(scores[verdict.evidence.metric]),
        scores=() if verdict is None else tuple(format_spread(scores.get(name, [])) for name in _metrics(verdict)),
        difference=differences[0] if differences else None,
        minutes=seconds / 60,
        supported_before=fmean(before) if before else None,
        supported_after=fmean(after) if after else None,
        changes=() if system == EXPERIMENT else tuple(list_changes_for_others(experiment, study.systems[system])),
        is_told=is_told_answers(study.systems[system]),
    )


def _state(name: str, page: RunPage | None) -> RunState:
    if page is None:
        return RunState(name, "not begun", "", 0)
    last = page.costs[-1] if page.costs else None
    where = "" if last is None else f"step {last.steps:,} of {last.stage}"
    return RunState(name, page.state, where, len(page.alarms))
