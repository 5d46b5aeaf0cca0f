"""The commands: one module each, with its options, its work and its words. No command imports another.

A command imports what it needs when it runs, so that ``--help`` answers at once. What several commands take or print is
here.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from retrograd.experiments.experiment import Experiment

__all__ = ["AsJson", "Changes", "Patch", "Recipe", "RunFolder", "load_experiment", "table_console"]

Recipe = Annotated[str, typer.Argument(help="A recipe's name (see `retrograd recipes`), or a .toml or .json file.")]
Changes = Annotated[
    list[str] | None, typer.Option("--set", help="Change one setting: section.setting=value. Repeatable.")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a finished run.")]
Patch = Annotated[
    Path | None, typer.Option(help="Corrected labels for the data: a patch in TACREV's or Re-TACRED's format.")
]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def load_experiment(recipe: str, changes: list[str] | None) -> Experiment:
    """Return the experiment of a recipe or file, with ``--set`` applied. Raises `UserError` with the nearest name."""
    from retrograd.recipes import named_experiment

    return named_experiment(recipe).with_settings(changes or [])


def table_console(width: int) -> Console:
    """Return a console for tables: as wide as the terminal, or ``width`` characters where output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)
