"""What ``retrograd train`` does: a new run, or one to go on with, either of which may be stopped."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

from retrograd.recipes import named_experiment
from retrograd.recipes.run import resume_run, run_experiment
from retrograd.recipes.use import scores_of
from retrograd.training.interrupts import Interrupted, Interrupts
from retrograd.types import UserError

__all__ = ["start"]


def start(recipe: str | None, out: Path | None, changes: Sequence[str], resume: Path | None) -> str:
    """Train ``recipe`` with ``changes`` into ``out``, or go on with ``resume``; returns what to say at the end.

    Raises `UserError` where not exactly one of the two is asked for, and `Interrupted`, in words, where a signal stops
    it.
    """
    if resume is not None and (recipe is not None or out is not None or changes):
        raise UserError(
            f"--resume goes on with {resume} as its experiment.toml says; leave out the recipe, --out and --set"
        )
    if resume is None and recipe is None:
        raise UserError("name a recipe or an experiment's file to train, or a run to go on with: --resume RUN")
    experiment = None if recipe is None else named_experiment(recipe).with_settings(changes)
    folder = resume or out or Path("runs") / (experiment.name if experiment is not None else "")
    try:
        with Interrupts() as interrupts:
            if experiment is None:
                run = resume_run(folder, interrupts)
            else:
                run = run_experiment(experiment, folder, interrupts)
    except Interrupted as stopped:
        raise Interrupted(_farewell(folder, str(stopped))) from None
    name = shlex.quote(str(run.path))
    return f"{scores_of(run.path)}\nThe run is in {run.path}. Next: retrograd search {name} 'your query'".strip()


def _farewell(folder: Path, where: str) -> str:
    if not (folder / "experiment.toml").exists():
        return "stopped before anything was written; start it again"
    how = f"{where}, saved" if where else "at once; what came after the last checkpoint is lost"
    return f"stopped {how}; go on with: retrograd train --resume {shlex.quote(str(folder))}"
