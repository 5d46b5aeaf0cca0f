"""``retrograd train``: start a run or a study, or go on with one that was stopped."""

from __future__ import annotations

import json as json_text
import os
import shlex
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.commands import (
    AsJson,
    NoCache,
    OptionalRecipeArgument,
    SettingsOption,
    add_no_cache,
    format_scores,
    load_experiment,
    print_json,
)
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.experiments.experiment import Experiment
    from retrograd.training.run.interrupts import Interrupts
    from retrograd.training.tracking.tracker import Tracker
    from retrograd.util.guards import JsonObject

__all__ = ["train", "train_or_resume"]


def train(
    recipe: OptionalRecipeArgument = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; default runs/NAME.")] = None,
    changes: SettingsOption = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, which was stopped; no recipe then.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Train closed book, random, frozen and oracle as well.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="With --controls: such as 0,1,2; default: the experiment's.")] = "",
    track: Annotated[
        list[str] | None,
        typer.Option(help="Log metrics and scores to tensorboard, trackio, wandb or mlflow, too. Repeatable."),
    ] = None,
    report: Annotated[
        bool, typer.Option("--report", help="Write report/report.html while it trains, and the whole page at the end.")
    ] = False,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Train an experiment, save the model, and evaluate it on the test data. Ctrl-C saves and stops; --resume goes on.

    Example: `retrograd train semeval-joint --out runs/joint --set training.epochs=2`

    With controls: `retrograd train semeval-joint --controls --seeds 0,1,2`
    """
    from retrograd.training.run.interrupts import Interrupted

    try:
        settings = add_no_cache(changes, no_cache)
        if track:
            settings = [*settings, f"track.kinds={json_text.dumps(track)}"]
        summary, record = train_or_resume(recipe, out, settings, resume, controls, seeds, report)
    except Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            typer.secho(f"retrograd: {stopped}", err=True)
        raise typer.Exit(130) from None
    if json and record:
        print_json(record)
    else:
        typer.echo(summary, nl=bool(summary))


def train_or_resume(
    recipe: str | None,
    out: Path | None,
    changes: Sequence[str],
    resume: Path | None,
    controls: bool = False,
    seeds: str = "",
    report: bool = False,
) -> tuple[str, JsonObject]:
    """Train ``recipe`` with ``changes`` into ``out``, or go on with ``resume``; return the closing message and
    the scores as a record.

    With ``controls`` the experiment is trained beside its controls, for each of the ``seeds``. ``resume`` may be such a
    study, too. With ``report`` the page of the run, or of the study, is written as it goes. Of several processes only
    the first returns a message; the others return "" and an empty record.

    Raises `UserError` unless exactly one of ``recipe`` and ``resume`` is given, and `Interrupted`, with advice, where a
    signal stops it.
    """
    _check_options(recipe, out, changes, resume, controls, seeds)
    experiment = None if recipe is None else load_experiment(recipe, list(changes))  # before torch is imported
    from retrograd.experiments.run import resume_run, run_experiment
    from retrograd.recipes import find_recipe
    from retrograd.studies.answers import saved_scores
    from retrograd.studies.study import is_study
    from retrograd.training.distributed.ranks import explain_lost_process, is_first_process
    from retrograd.training.run.interrupts import Interrupted, Interrupts

    default = "" if experiment is None else experiment.name + ("-controls" if controls else "")
    folder = resume or out or Path("runs") / default
    try:
        with explain_lost_process(), Interrupts() as interrupts:
            if controls or is_study(folder):
                return _train_study(experiment, seeds, folder, interrupts, report)
            trackers = _watch(folder) if report else {}
            if experiment is None:
                run = resume_run(folder, interrupts, trackers)
            else:
                run = run_experiment(
                    experiment, folder, interrupts, recipe=find_recipe(experiment.name), trackers=trackers
                )
    except Interrupted as stopped:
        raise Interrupted(_format_interruption(folder, str(stopped))) from None
    if not is_first_process():
        return "", {}
    name, scores = shlex.quote(str(run.path)), saved_scores(run.path)
    next_command = f"retrograd search {name} 'your query'"
    page = f" Its page is {_write_page(run.path)}." if report else ""
    message = f"{format_scores(scores)}\nThe run is in {run.path}.{page} Next: {next_command}".strip()
    return message, {"run": str(run.path), "scores": {**scores}}


def _watch(run: Path) -> dict[str, Tracker]:
    from retrograd.report.live import watch_run

    return watch_run(run)


def _write_page(run: Path) -> Path:
    """Write the whole page of a run that has ended, without the vote, which would open its model again."""
    from retrograd.report.run_page import save_run_page
    from retrograd.studies.report_page import build_page

    folder = run / "report"
    page, record = build_page(run, [], with_vote=False)
    if record is not None:
        record.save(folder)
    return save_run_page(page, folder)


def _check_options(
    recipe: str | None, out: Path | None, changes: Sequence[str], resume: Path | None, controls: bool, seeds: str
) -> None:
    """Raise `UserError` for options that exclude each other."""
    if resume is not None and (recipe is not None or out is not None or changes or controls or seeds):
        raise UserError(f"--resume goes on with {resume} as it was begun; leave out the recipe and all other options")
    if seeds and not controls:
        first = seeds.partition(",")[0]
        raise UserError(f"--seeds {seeds} is for --controls; for one run with another seed: --set seed={first}")
    if resume is None and recipe is None:
        raise UserError("name a recipe or an experiment's file to train, or a run to go on with: --resume RUN")


def _train_study(
    experiment: Experiment | None, seeds: str, folder: Path, interrupts: Interrupts, report: bool
) -> tuple[str, JsonObject]:
    """Train a new study of an experiment, or without one the rest of the study in the folder."""
    from retrograd.report.evidence import save_evidence
    from retrograd.report.live import watch_study
    from retrograd.report.study_page import save_study_page
    from retrograd.studies.report_study import build_study_page
    from retrograd.studies.study import EXPERIMENT, Study, seeds_of
    from retrograd.studies.verdict import judge_study
    from retrograd.training.distributed.ranks import is_only_process

    if not is_only_process():
        raise UserError(
            f"{folder} is to hold a study, whose runs are trained in one process; start it without torchrun"
        )
    if experiment is None:
        study = Study.open(folder)
    else:
        study = Study.begin(experiment, seeds_of(seeds, experiment), folder)
    study.train(interrupts, partial(watch_study, study=folder) if report else None)
    verdict = judge_study(folder)
    text = save_evidence(verdict)
    if report:
        for run in study.runs:
            _write_page(run.path)
        text += f"\n\nThe page is {save_study_page(build_study_page(folder)[0], folder / 'report')}."
    paths = {run.system: shlex.quote(str(run.path)) for run in reversed(study.runs)}  # of the first seed
    next_command = f"retrograd compare {paths[verdict.strongest_rival]} {paths[EXPERIMENT]}"
    return f"{text}\n\nThe runs are in {folder}. Next: {next_command}", {"study": str(folder), **verdict.record()}


def _format_interruption(folder: Path, where: str) -> str:
    """Return how a run was stopped ("": at once) and how to go on with it."""
    from retrograd.studies.study import is_study

    if not (folder / "experiment.toml").exists() and not is_study(folder):
        return "stopped before anything was written; start it again"
    how = f"{where}, saved" if where else "at once; what came after the last checkpoint, if there is one, is lost"
    return f"stopped {how}; go on with: retrograd train --resume {shlex.quote(str(folder))}"
