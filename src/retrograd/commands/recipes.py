"""``retrograd recipes``: the list of named experiments."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from retrograd.commands import AsJson, print_json

__all__ = ["TaskName", "recipes"]

TaskName = Literal["relations", "questions", "dialogue"]


def recipes(
    task: Annotated[TaskName | None, typer.Option(help="Only those for this kind of data.")] = None,
    here: Annotated[
        bool,
        typer.Option("--here", help="Only those whose models are here: installed, in a folder, or downloaded."),
    ] = False,
    json: AsJson = False,
) -> None:
    """List the recipes by kind of data, those first whose models are on this machine.

    Example: `retrograd recipes --task relations --here`
    """
    from retrograd.recipes import RECIPES
    from retrograd.recipes.here import list_missing_models

    groups: dict[tuple[str, bool], list[dict[str, object]]] = {}
    for name, recipe in RECIPES.items():
        experiment = recipe()
        missing = list_missing_models(experiment)
        kind = experiment.data.kind
        if task in (None, kind) and not (here and missing):
            facts = {"name": name, "task": kind, "summary": recipe.summary, "missing_models": missing}
            groups.setdefault((kind, not missing), []).append(facts)
    ordered = sorted(groups.items(), key=lambda group: (not group[0][1],))  # stable: kinds in order of the recipes
    if json:
        print_json({"recipes": [facts for _, own in ordered for facts in own]})
        return
    width = max((len(name) for name in RECIPES), default=0)
    for (kind, is_here), own in ordered:
        typer.echo(f"{kind}, {'models on this machine' if is_here else 'models to be downloaded or installed'}:")
        for facts in own:
            typer.echo(f"  {facts['name']:<{width}}  {facts['summary']}")
        typer.echo()
    typer.echo("Look at one with `retrograd show NAME`, run it with `retrograd train NAME --out runs/NAME`.")
