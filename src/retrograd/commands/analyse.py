"""``retrograd analyse``: the neighbours that a run retrieves, or the scores of several runs over a setting."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.commands import table_console
from retrograd.types import UserError

if TYPE_CHECKING:
    from retrograd.studies.analyse import Split

__all__ = ["analyse"]


def analyse(
    runs: Annotated[list[Path], typer.Argument(help="The folder of a finished run; with --runs several.")],
    compare: Annotated[
        bool, typer.Option("--runs", help="Compare the scores of several runs over k instead; opens no model.")
    ] = False,
    split: Annotated[str, typer.Option(help="Whose queries: test, dev or train.")] = "test",
    limit: Annotated[int, typer.Option(min=0, help="So many queries, stratified by label; 0 for all.")] = 0,
    k: Annotated[
        list[int] | None, typer.Option("-k", min=1, help="Neighbours looked at. Repeatable; default: the run's.")
    ] = None,
    over: Annotated[
        str, typer.Option(help="With --runs: the setting to draw scores over, such as data.train_count; default: k.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder for the results; default: RUN/analysis.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the draw of queries.")] = 0,
) -> None:
    """Show what a run retrieves: whether neighbours share label or entities, against chance, and how few carry it.

    Example: `retrograd analyse runs/joint -k 1 -k 5`

    Several runs: `retrograd analyse --runs runs/k1-seed0 runs/k1-seed1 runs/k5-seed0 runs/k5-seed1`
    """
    if split not in ("test", "dev", "train"):
        raise UserError(f"--split {split}: expected test, dev or train")
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
        _compare_runs(runs, folder, over)
    else:
        _analyse_run(runs[0], split, limit, k or [], folder, seed)
    typer.echo(f"\nFigures and pictures are in {folder}.")


def _compare_runs(runs: list[Path], folder: Path, over: str) -> None:
    from retrograd.report.curves import draw_curves, print_curves, save_curve_text
    from retrograd.studies.curves import compare_runs

    curves = compare_runs(runs, folder, over)
    save_curve_text(curves, folder / "curves.txt")
    draw_curves(curves, folder / "curves.png")
    print_curves(curves, table_console(110))


def _analyse_run(run: Path, split: Split, limit: int, ks: list[int], folder: Path, seed: int) -> None:
    from retrograd.report.analysis import draw_analysis, print_analysis, save_text
    from retrograd.studies.analyse import analyse_run

    analysis = analyse_run(run, split, limit, ks, folder, seed)
    save_text(analysis, folder / "analysis.txt")
    draw_analysis(analysis, folder)
    print_analysis(analysis, table_console(110))
