"""``retrograd evaluate``: the scores of a finished run, or of a study."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import Patch, RunFolder

__all__ = ["evaluate"]


def evaluate(
    run: RunFolder,
    data: Annotated[Path | None, typer.Option(help="Labelled examples; default: the run's own test data.")] = None,
    patch: Patch = None,
    passages: Annotated[
        int | None, typer.Option(min=0, help="Passages per query, 0 for none; default: the run's.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for predictions.jsonl and scores.json.")] = None,
) -> None:
    """Score a finished run: official answer scores and neighbour scores; of a study (`train --controls`) its verdict.

    Example: `retrograd evaluate runs/joint --data mine.jsonl --out runs/joint/mine`
    """
    from retrograd.studies.use import evaluate_run

    typer.echo(evaluate_run(run, data, patch, passages, out))
