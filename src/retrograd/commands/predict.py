"""``retrograd predict``: answers to new examples."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import Patch, RunFolder

__all__ = ["predict"]


def predict(
    run: RunFolder,
    data: Annotated[Path, typer.Argument(help="Examples, with or without answers, in any format `train` reads.")],
    patch: Patch = None,
    out: Annotated[Path | None, typer.Option(help="File for the answers as JSON Lines; default: the screen.")] = None,
) -> None:
    """Answer new examples, each answer with its passages and their weights.

    Example: `retrograd predict runs/joint new.jsonl --out answers.jsonl`
    """
    from retrograd.studies.use import predict_file

    typer.echo(predict_file(run, data, patch, out), nl=False)
