"""The commands: one module each, which parses options, calls the library and prints. No command imports another.

A command imports what it needs when it runs, so that ``--help`` answers at once. This file holds the options and texts
that several commands share.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from retrograd.experiments.experiment import Experiment
    from retrograd.types import Hit

__all__ = [
    "AsJson",
    "DataSettings",
    "FileKind",
    "NoCache",
    "OptionalRecipeArgument",
    "PassagesRead",
    "Patch",
    "RecipeArgument",
    "RunFolder",
    "SettingsOption",
    "SourceOption",
    "add_no_cache",
    "format_hits",
    "format_scores",
    "load_experiment",
    "print_json",
    "table_console",
]

# What bare data files hold: `file_kinds()`, as a test compares.
FileKind = Literal["relations", "questions", "dialogue", "corpus"]

_MANY_EMPTY_ANSWERS = 50.0  # percent


def _complete_recipe(incomplete: str) -> list[tuple[str, str]]:
    """Return the recipes that begin so, each with its summary, for the shell."""
    from retrograd.recipes import RECIPES

    return [(name, recipe.summary) for name, recipe in RECIPES.items() if name.startswith(incomplete)]


def _complete_setting(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return the settings ``section.name=`` that begin so: of the recipe where one was named, else of any."""
    from retrograd.experiments.experiment import Experiment
    from retrograd.recipes import open_experiment
    from retrograd.types import UserError

    named = [word for word in (ctx.params.get("recipe"), *ctx.args) if isinstance(word, str)]
    try:
        experiment = open_experiment(named[0]) if named else Experiment()
    except UserError:
        experiment = Experiment()
    names = []
    for name, value in experiment.to_mapping().items():
        names += [f"{name}.{setting}=" for setting in value] if isinstance(value, Mapping) else [f"{name}="]
    return [name for name in names if name.startswith(incomplete)]


_RECIPE = "A recipe's name (see `retrograd recipes`), or a .toml or .json file."
RecipeArgument = Annotated[str, typer.Argument(help=_RECIPE, autocompletion=_complete_recipe)]
OptionalRecipeArgument = Annotated[str | None, typer.Argument(help=_RECIPE, autocompletion=_complete_recipe)]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Change one setting: section.setting=value. Repeatable.", autocompletion=_complete_setting
    ),
]
DataSettings = Annotated[
    list[str] | None,
    typer.Option("--set", help="How the file is read, where not as the run's data: data.setting=value. Repeatable."),
]
SourceOption = Annotated[
    str | None, typer.Option("--run", help="The run or experiment it belongs to; default: the one that built it.")
]
PassagesRead = Annotated[
    int | None, typer.Option("-k", "--passages", min=0, help="Passages per query, 0 for none; default: the run's.")
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a finished run.")]
Patch = Annotated[
    Path | None, typer.Option(help="Corrected labels for the data: a patch in TACREV's or Re-TACRED's format.")
]
NoCache = Annotated[
    bool, typer.Option("--no-cache", help="Embed the base anew: take nothing from the cache, and keep nothing there.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else there.")]


def load_experiment(recipe: str, changes: list[str] | None, no_cache: bool = False) -> Experiment:
    """Return the experiment of a recipe or file, with ``--set`` applied. Raises `UserError` with the nearest name."""
    from retrograd.recipes import open_experiment

    return open_experiment(recipe).with_settings(add_no_cache(changes, no_cache))


def print_json(record: Mapping[str, object]) -> None:
    """Print a record as one JSON object; paths are printed as text."""
    typer.echo(json.dumps(record, ensure_ascii=False, indent=2, default=str))


def add_no_cache(changes: list[str] | None, no_cache: bool) -> list[str]:
    """Return the changes of ``--set`` and, where it is given, of ``--no-cache``."""
    return [*(changes or []), *(["index.cache=false"] if no_cache else [])]


def table_console(width: int) -> Console:
    """Return a console for tables: as wide as the terminal, or ``width`` characters where output is no terminal."""
    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() else width)


def format_scores(scores: Mapping[str, float]) -> str:
    """Return scores in percent, one a line, and advice where most answers are empty."""
    lines = [f"{name:<20} {value:6.2f} %" for name, value in scores.items()]
    if scores.get("empty_rate", 0.0) > _MANY_EMPTY_ANSWERS:
        lines.append(
            "Most answers are empty: the generator has not learned to write them. Train it longer (training.epochs), "
            "or name one that can write (generator.model)."
        )
    return "\n".join(lines)


def format_hits(hits: Sequence[Hit]) -> str:
    """Return a heading and one line for each passage, with its p(z|x)."""
    lines = [f"{hit.probability:6.1%}  [{hit.passage.title}] {hit.passage.text}" for hit in hits]
    return "\n".join(["p(z|x)  passage", *lines])
