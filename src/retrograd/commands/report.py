"""``retrograd report``: one honest page about a run, or about a study."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, print_json, table_console
from retrograd.types import UserError

__all__ = ["report"]


def report(
    run: Annotated[Path, typer.Argument(help="The folder of a run, or of a study that `train --controls` began.")],
    controls: Annotated[
        list[Path] | None, typer.Argument(help="Other finished runs with the same test data, to stand beside it.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder for report.html, report.md, report.json and pictures; default: RUN/report."),
    ] = None,
    no_vote: Annotated[
        bool, typer.Option("--no-vote", help="Leave out the vote of the run's neighbours; no model is opened then.")
    ] = False,
    resamples: Annotated[int, typer.Option(min=100, help="Of bootstraps and permutation tests.")] = 1_000,
    json: AsJson = False,
) -> None:
    """Write one honest page about a run: score, trivial answer, controls, neighbours before and after, slices.

    A run that is still training gets the page of what is known so far.

    Example: `retrograd report runs/demo/semeval-joint runs/demo/semeval-frozen --out report`
    """
    from retrograd.studies.study import is_study

    folder = out or run / "report"
    if is_study(run):
        if controls:
            raise UserError(f"{run} is a study, which has its controls; leave out {controls[0]}")
        _report_study(run, folder, json)
    else:
        _report_run(run, controls or [], folder, not no_vote, resamples, json)


def _report_run(run: Path, controls: list[Path], folder: Path, with_vote: bool, resamples: int, json: bool) -> None:
    from retrograd.report.answer_page import print_answer_report, save_answer_page
    from retrograd.report.page import print_report, save_page
    from retrograd.report.run_page import save_run_page
    from retrograd.studies.report import RelationReport
    from retrograd.studies.report_page import build_page

    page, record = build_page(run, controls, with_vote, resamples)
    path = save_run_page(page, folder)
    if record is not None:
        record.save(folder)
    if isinstance(record, RelationReport):
        save_page(record, folder)
    elif record is not None:
        save_answer_page(record, folder)
    if json:
        print_json({"folder": folder, "page": path, "state": page.state, **({} if record is None else asdict(record))})
        return
    if isinstance(record, RelationReport):
        print_report(record, table_console(120))
    elif record is not None:
        print_answer_report(record, table_console(120))
    else:
        typer.echo("\n".join(page.verdict))
    also = "" if record is None else f"; its figures as text are in {folder / 'report.md'}"
    typer.echo(f"\nThe page is {path}{also}.")


def _report_study(study: Path, folder: Path, json: bool) -> None:
    from retrograd.report.evidence import format_evidence
    from retrograd.report.study_page import save_study_page
    from retrograd.studies.report_study import build_study_page

    page, verdict = build_study_page(study)
    path = save_study_page(page, folder)
    if json:
        print_json({"folder": folder, "page": path, **({} if verdict is None else verdict.record())})
        return
    typer.echo("\n".join(page.verdict) if verdict is None else format_evidence(verdict))
    typer.echo(f"\nThe page is {path}.")
