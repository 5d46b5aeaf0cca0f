"""The options of ``retrograd train``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import Changes

__all__ = ["train"]


def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe's name (see `retrograd recipes`), or a .toml or .json file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the run; default runs/NAME.")] = None,
    changes: Changes = None,
    resume: Annotated[Path | None, typer.Option(help="Go on with this run, which was stopped; no recipe then.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls", help="Train closed book, random, frozen and oracle as well.")
    ] = False,
    seeds: Annotated[str, typer.Option(help="With --controls: such as 0,1,2; default: the experiment's.")] = "",
) -> None:
    """Train an experiment, save the model, and evaluate it on the test data. Ctrl-C saves and stops; --resume goes on.

    Example: `retrograd train semeval-joint --out runs/joint --set training.epochs=2`

    With controls: `retrograd train semeval-joint --controls --seeds 0,1,2`
    """
    from retrograd.commands.train.work import start
    from retrograd.training.run.interrupts import Interrupted

    try:
        summary = start(recipe, out, changes or [], resume, controls, seeds)
        typer.echo(summary, nl=bool(summary))
    except Interrupted as stopped:
        if os.environ.get("RANK", "0") == "0":
            typer.secho(f"retrograd: {stopped}", err=True)
        raise typer.Exit(130) from None
