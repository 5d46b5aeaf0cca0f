"""The command that measures gradient estimators."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from retrograd.preflight_cli import Set
from retrograd.types import UserError

__all__ = ["laboratory_app"]

laboratory_app = typer.Typer()


@laboratory_app.command()
def lab(
    source: Annotated[str, typer.Argument(help="A finished run's folder, or a recipe or experiment file (untrained).")],
    objectives: Annotated[
        str, typer.Option(help="Only these, comma-separated: parts of a name, or a class such as TopKMarginal.")
    ] = "",
    queries: Annotated[int, typer.Option(min=1, help="Training queries in the batch.")] = 64,
    redraws: Annotated[int, typer.Option(min=2, help="Independent draws of each estimator.")] = 100,
    out: Annotated[Path | None, typer.Option(help="Folder for figures and picture; default RUN/lab.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the batch and of the draws.")] = 0,
    along: Annotated[
        bool, typer.Option("--along", help="Measure at each checkpoint that the run kept (training.keep_checkpoints).")
    ] = False,
    changes: Set = None,
) -> None:
    """Measure bias, variance and cost of gradient estimators on a model, its data and its knowledge base.

    Example: `retrograd lab runs/joint --queries 64 --redraws 100`
    """
    folder = Path(source)
    is_run = (folder / "experiment.toml").exists()
    if is_run and changes:
        raise UserError("--set changes an experiment before training; a finished run is measured as it is")
    if along and not is_run:
        raise UserError(f"--along measures the checkpoints of a run, and {source} is none; leave it out")
    from rich.console import Console

    from retrograd.report.figures import require_matplotlib

    require_matplotlib()
    if folder.is_dir() and not is_run:
        from retrograd.training.run.run_directory import RunDirectory

        RunDirectory.open(folder)  # which says what it is instead
    place = out or (folder / "lab" if is_run else Path("runs") / f"lab-{folder.stem}")
    names = [name.strip() for name in objectives.split(",") if name.strip()]
    console = Console(width=None if sys.stdout.isatty() else 160)
    if along:
        from retrograd.report.laboratory_along import draw_along, print_along
        from retrograd.studies.laboratory.along import run_laboratory_along

        moments = run_laboratory_along(folder, names, queries, redraws, place, seed)
        draw_along(moments, place / "lab-along.png")
        print_along(moments, console)
    else:
        from retrograd.recipes import named_experiment
        from retrograd.report.laboratory import draw, print_report
        from retrograd.studies.laboratory.lab import run_laboratory

        subject = folder if is_run else named_experiment(source).with_settings(changes or [])
        report = run_laboratory(subject, names, queries, redraws, place, seed)
        draw(report, place / "lab.png")
        print_report(report, console)
    typer.echo(f"\nFigures and picture are in {place}.")
