"""``retrograd analyse``: the neighbours that a run retrieves, or the scores of several runs over a setting."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retrograd.commands import AsJson, print_json, table_console
from retrograd.types import UserError

__all__ = ["analyse"]

Split = Literal["test", "dev", "train"]


def analyse(
    runs: Annotated[list[Path], typer.Argument(help="The folder of a finished run; with --runs several.")],
    compare: Annotated[
        bool, typer.Option("--runs", help="Compare the scores of several runs over k instead; opens no model.")
    ] = False,
    split: Annotated[Split, typer.Option(help="Whose queries.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="So many queries, stratified by label; 0 for all.")] = 0,
    k: Annotated[
        list[int] | None,
        typer.Option("-k", "--passages", min=1, help="Neighbours looked at. Repeatable; default: the run's."),
    ] = None,
    over: Annotated[
        str, typer.Option(help="With --runs: the setting to draw scores over, such as data.train_count; default: k.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: RUN/analysis.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of queries.")] = 0,
    json: AsJson = False,
) -> None:
    """Show what a run retrieves: whether neighbours share label or entities, against chance, and how few carry it.

    Example: `retrograd analyse runs/joint -k 1 -k 5`

    Several runs: `retrograd analyse --runs runs/k1-seed0 runs/k1-seed1 runs/k5-seed0 runs/k5-seed1`
    """
    if compare and (split != "test" or limit or k):
        raise UserError("--runs compares scores that were computed already; --split, --limit and -k need a single run")
    if not compare and len(runs) > 1:
        raise UserError(f"{len(runs)} runs; analyse one at a time, or compare their scores with --runs")
    if not compare and over:
        raise UserError("--over is for comparing runs; add --runs")
    from retrograd.report.figures import require_matplotlib

    require_matplotlib()
    folder = out or runs[0] / "analysis"
    if compare:
        _compare_runs(runs, folder, over, json)
    else:
        _analyse_run(runs[0], split, limit, k or [], folder, seed, json)
    if not json:
        typer.echo(f"\nFigures and pictures are in {folder}.")


def _compare_runs(runs: list[Path], folder: Path, over: str, json: bool) -> None:
    from retrograd.report.curves import draw_curves, print_curves, save_curve_text
    from retrograd.studies.curves import compare_runs

    curves = compare_runs(runs, folder, over)
    save_curve_text(curves, folder / "curves.txt")
    draw_curves(curves, folder / "curves.png")
    if json:
        print_json({"folder": folder, **curves.record()})
    else:
        print_curves(curves, table_console(110))


def _analyse_run(run: Path, split: Split, limit: int, ks: list[int], folder: Path, seed: int, json: bool) -> None:
    from retrograd.report.analysis import draw_analysis, print_analysis, save_text
    from retrograd.studies.analyse import analyse_run

    analysis = analyse_run(run, split, limit, ks, folder, seed)
    save_text(analysis, folder / "analysis.txt")
    draw_analysis(analysis, folder)
    if json:
        print_json({"folder": folder, **analysis.record()})
    else:
        print_analysis(analysis, table_console(110))
