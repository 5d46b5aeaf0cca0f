"""``retrograd lab``: bias, variance and cost of gradient estimators on a model, its data and its knowledge base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, NoCache, SettingsOption, load_experiment, print_json, table_console
from retrograd.types import UserError

__all__ = ["lab"]


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
    changes: SettingsOption = None,
    no_cache: NoCache = False,
    json: AsJson = False,
) -> None:
    """Measure bias, variance and cost of gradient estimators on a model, its data and its knowledge base.

    Example: `retrograd lab runs/joint --queries 64 --redraws 100`
    """
    run = Path(source)
    is_run = (run / "experiment.toml").exists()
    if is_run and changes:
        raise UserError("--set changes an experiment before training; a finished run is measured as it is")
    if is_run and no_cache:
        raise UserError("--no-cache is for an experiment before training; a finished run brings its own index")
    if along and not is_run:
        raise UserError(f"--along measures the checkpoints of a run, and {source} is not a run; leave --along out")
    if run.is_dir() and not is_run:
        from retrograd.training.run.run_directory import RunDirectory

        RunDirectory.open(run)  # raises an error that says what the folder is instead
    subject = run if is_run else load_experiment(source, changes, no_cache)
    folder = out or (run / "lab" if is_run else Path("runs") / f"lab-{run.stem}")
    from retrograd.report.figures import require_matplotlib

    require_matplotlib()
    names = [name.strip() for name in objectives.split(",") if name.strip()]
    if along:
        _measure_along(run, names, queries, redraws, folder, seed, json)
    else:
        from retrograd.report.laboratory import draw, print_report
        from retrograd.studies.laboratory.lab import run_laboratory

        report = run_laboratory(subject, names, queries, redraws, folder, seed)
        draw(report, folder / "lab.png")
        if json:
            print_json({"folder": folder, **report.record()})
        else:
            print_report(report, table_console(160))
    if not json:
        typer.echo(f"\nFigures and picture are in {folder}.")


def _measure_along(
    run: Path, names: list[str], queries: int, redraws: int, folder: Path, seed: int, json: bool
) -> None:
    from retrograd.report.laboratory_along import draw_along, print_along
    from retrograd.studies.laboratory.along import run_laboratory_along

    moments = run_laboratory_along(run, names, queries, redraws, folder, seed)
    draw_along(moments, folder / "lab-along.png")
    if json:
        print_json({"folder": folder, "moments": [moment.record() for moment in moments]})
    else:
        print_along(moments, table_console(160))
