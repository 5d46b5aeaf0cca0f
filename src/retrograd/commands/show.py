"""``retrograd show``: an experiment as TOML; of a recipe from a paper, with marks where it differs from the paper."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import typer

from retrograd.commands import AsJson, RecipeArgument, SettingsOption, load_experiment

if TYPE_CHECKING:
    from retrograd.experiments.experiment import Experiment

__all__ = ["annotate", "show"]

_SECTION = re.compile(r"\[(\w+)\]")
_SETTING = re.compile(r"(\w+) = ")
_INTRODUCTION = "# Marked lines differ from the paper. What it does not say is not marked. No setting says that:"


def show(
    recipe: RecipeArgument,
    changes: SettingsOption = None,
    json: AsJson = False,
) -> None:
    """Print an experiment with every setting resolved, as TOML that `train` reads.

    Recipes of a paper mark what differs from it. docs/settings.md says what each setting does.

    Example: `retrograd show semeval-joint > mine.toml`
    """
    experiment = load_experiment(recipe, changes)
    from retrograd.recipes import RECIPES

    recipe_entry = RECIPES.get(recipe)
    if json:
        typer.echo(experiment.to_json(), nl=False)
    elif recipe_entry is None or not recipe_entry.published:
        typer.echo(experiment.to_toml(), nl=False)
    else:
        typer.echo(annotate(experiment, recipe_entry.published, recipe_entry.deviations), nl=False)


def annotate(experiment: Experiment, published: Mapping[str, object], deviations: Sequence[str]) -> str:
    """Return `Experiment.to_toml`, which `train` reads, with comments.

    A setting whose value is not that of ``published`` (by ``section.name``) has the published one beside it;
    ``deviations``, what no setting can express, come first.
    """
    values, section = experiment.to_mapping(), ""
    lines = [_INTRODUCTION, *(f"#   {deviation}" for deviation in deviations)]
    for line in experiment.to_toml().splitlines():
        if heading := _SECTION.fullmatch(line):
            section = heading[1]
        setting = _SETTING.match(line)
        lines.append(line + _remark(values.get(section), f"{section}.{setting[1]}", published) if setting else line)
    return "\n".join(lines) + "\n"


def _remark(values: object, name: str, published: Mapping[str, object]) -> str:
    """Return a comment with the published value; empty where it is the same, or the paper does not give it."""
    value = values.get(name.rpartition(".")[2]) if isinstance(values, Mapping) else None
    in_paper = published.get(name, value)
    if value == in_paper:
        return ""
    return f"  # published: {', '.join(in_paper) if isinstance(in_paper, list) else _toml(in_paper)}"


def _toml(value: object) -> str:
    import tomli_w

    return tomli_w.dumps({"value": value}).removeprefix("value = ").strip()
