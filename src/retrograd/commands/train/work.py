"""What ``retrograd train`` does: a new run or study, or one to go on with, each of which may be stopped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import resume_run, run_experiment
from retrograd.recipes import named_experiment
from retrograd.studies.study import EXPERIMENT, Study, is_study, seeds_of
from retrograd.studies.use import scores_of
from retrograd.studies.verdict import judged
from retrograd.training.distributed.ranks import explain_lost_process, is_first_process, is_only_process
from retrograd.training.run.interrupts import Interrupted, Interrupts
from retrograd.types import UserError

__all__ = ["start"]


def start(
    recipe: str | None,
    out: Path | None,
    changes: Sequence[str],
    resume: Path | None,
    controls: bool = False,
    seeds: str = "",
) -> str:
    """Train ``recipe`` with ``changes`` into ``out``, or go on with ``resume``; returns what to say at the end,
    of several processes the first alone.

    With ``controls`` the experiment is trained beside its controls, for each of the ``seeds``; what is gone on with may
    be such a study, too.

    Raises `UserError` where not exactly one of the two is asked for, and `Interrupted`, in words, where a signal stops
    it.
    """
    if resume is not None and (recipe is not None or out is not None or changes or controls or seeds):
        raise UserError(f"--resume goes on with {resume} as it was begun; leave out the recipe and all other options")
    if seeds and not controls:
        first = seeds.partition(",")[0]
        raise UserError(f"--seeds {seeds} is for --controls; for one run with another seed: --set seed={first}")
    if resume is None and recipe is None:
        raise UserError("name a recipe or an experiment's file to train, or a run to go on with: --resume RUN")
    experiment = None if recipe is None else named_experiment(recipe).with_settings(changes)
    default = "" if experiment is None else experiment.name + ("-controls" if controls else "")
    folder = resume or out or Path("runs") / default
    try:
        with explain_lost_process(), Interrupts() as interrupts:
            if controls or is_study(folder):
                return _study(experiment, seeds, folder, interrupts)
            if experiment is None:
                run = resume_run(folder, interrupts)
            else:
                run = run_experiment(experiment, folder, interrupts)
    except Interrupted as stopped:
        raise Interrupted(_farewell(folder, str(stopped))) from None
    if not is_first_process():
        return ""
    name = shlex.quote(str(run.path))
    return f"{scores_of(run.path)}\nThe run is in {run.path}. Next: retrograd search {name} 'your query'".strip()


def _study(experiment: Experiment | None, seeds: str, folder: Path, interrupts: Interrupts) -> str:
    """A new study of an experiment, or without one that of the folder to its end."""
    if not is_only_process():
        raise UserError(
            f"{folder} is to hold a study, whose runs are trained in one process; start it without torchrun"
        )
    if experiment is None:
        study = Study.open(folder)
    else:
        study = Study.begin(experiment, seeds_of(seeds, experiment), folder)
    study.train(interrupts)
    text, rival = judged(folder)
    runs = {run.system: shlex.quote(str(run.path)) for run in reversed(study.runs)}  # those of the first seed
    return f"{text}\n\nThe runs are in {folder}. Next: retrograd compare {runs[rival]} {runs[EXPERIMENT]}"


def _farewell(folder: Path, where: str) -> str:
    if not (folder / "experiment.toml").exists() and not is_study(folder):
        return "stopped before anything was written; start it again"
    how = f"{where}, saved" if where else "at once; what came after the last checkpoint, if there is one, is lost"
    return f"stopped {how}; go on with: retrograd train --resume {shlex.quote(str(folder))}"
