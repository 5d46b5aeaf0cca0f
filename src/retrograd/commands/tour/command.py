"""The options of ``retrograd tour``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import SettingsOption, load_experiment

__all__ = ["tour"]


def tour(
    out: Annotated[Path, typer.Option(help="Folder for the run; a numbered one beside it where it exists.")] = Path(
        "runs/tour"
    ),
    seed: Annotated[int, typer.Option(help="Seed of data, queries and training.")] = 0,
    changes: SettingsOption = None,
) -> None:
    """Watch a retriever learn, in a minute, offline: five queries and their nearest sentences, before, during, after.

    Example: `retrograd tour --seed 1`
    """
    load_experiment("semeval-joint", changes)  # mistakes first, without torch
    from retrograd.commands.tour.lesson import run_tour
    from retrograd.util.progress import show_progress

    show_progress(False)  # the tour shows the progress of training itself
    run_tour(out, seed, changes)
