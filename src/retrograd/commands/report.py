"""``retrograd report``: one honest page about a run."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, RunFolder, print_json, table_console

__all__ = ["report"]


def report(
    run: RunFolder,
    controls: Annotated[
        list[Path] | None, typer.Argument(help="Other finished runs with the same test data, to stand beside it.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.md, report.json and slices.png; default: RUN/report.")
    ] = None,
    no_vote: Annotated[
        bool, typer.Option("--no-vote", help="Leave out the vote of the run's neighbours; no model is opened then.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Of bootstraps and permutation tests.")] = 1_000,
    json: AsJson = False,
) -> None:
    """Write one honest page about a run: official score, trivial answer, controls, confusions, slices.

    Example: `retrograd report runs/demo/semeval-joint runs/demo/semeval-frozen --out report`
    """
    from retrograd.report.figures import require_matplotlib
    from retrograd.report.page import print_report, save_page
    from retrograd.studies.report import report_run

    require_matplotlib()
    folder = out or run / "report"
    page = report_run(run, controls or [], folder, not no_vote, resamples)
    save_page(page, folder)
    if json:
        print_json({"folder": folder, **asdict(page)})
        return
    print_report(page, table_console(120))
    typer.echo(f"\nThe page is {folder / 'report.md'}.")
