"""``retrograd compare``: the difference of two runs, and whether it could be chance."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, RunFolder, print_json, table_console

__all__ = ["compare"]


def compare(
    baseline: RunFolder,
    system: Annotated[Path, typer.Argument(help="Another finished run with the same test data.")],
    resamples: Annotated[int, typer.Option(min=100, help="Of the bootstrap and of the permutation test.")] = 1_000,
    json: AsJson = False,
) -> None:
    """Compare the scores of two runs on the same test data: difference, interval, p, and what it comes from.

    Example: `retrograd compare runs/demo/semeval-frozen runs/demo/semeval-joint`
    """
    from retrograd.report.comparison import print_comparison
    from retrograd.studies.compare import compare as compare_runs

    names = (baseline.resolve().name, system.resolve().name)  # "." has none
    names = names if names[0] != names[1] else (str(baseline), str(system))
    comparison = compare_runs(baseline, system, resamples)
    if json:
        print_json({"runs": [baseline, system], **asdict(comparison)})
    else:
        print_comparison(comparison, names, table_console(110))
