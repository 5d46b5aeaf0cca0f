"""``retrograd recipes``: the list of named experiments."""

from __future__ import annotations

import typer

__all__ = ["recipes"]


def recipes() -> None:
    """List the recipes.

    Example: `retrograd recipes`
    """
    from retrograd.recipes import RECIPES

    width = max(len(name) for name in RECIPES)
    for name, recipe in RECIPES.items():
        typer.echo(f"{name:<{width}}  {recipe.summary}")
    typer.echo("\nLook at one with `retrograd show NAME`, run it with `retrograd train NAME --out runs/NAME`.")
