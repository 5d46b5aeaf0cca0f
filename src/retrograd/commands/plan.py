"""``retrograd plan``: the needs of an experiment, before any download."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from retrograd.commands import AsJson, RecipeArgument, SettingsOption, load_experiment, print_json, table_console
from retrograd.types import UserError

__all__ = ["HardwareName", "plan"]

HardwareName = Literal["h100", "h200", "a100-80gb", "a100-40gb", "rtx-4090", "t4", "cpu-2-cores"]


def plan(
    recipe: RecipeArgument,
    changes: SettingsOption = None,
    hardware: Annotated[HardwareName | None, typer.Option(help="Plan for such a machine; default: this one.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Training examples, where the data are not here.")] = 0,
    passages: Annotated[
        int, typer.Option("--base-size", "--passages", min=0, help="Passages of the base, where it is not here.")
    ] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that train, each with such hardware.")] = 1,
    like: Annotated[
        list[str] | None, typer.Option(help="Plan with another model's shape: generator=NAME or retriever=FOLDER.")
    ] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Compute the hours; time no step of the model.")] = False,
    json: AsJson = False,
) -> None:
    """Estimate the needs of an experiment, before any download: parameters, memory, prompts, steps, hours.

    Exit status 1 where it does not fit into the memory there is, with the part that is too large and what to do.

    Example: `retrograd plan jsa-rag-nq --hardware h100 --base-size 21015324 --examples 79168`
    """
    experiment = load_experiment(recipe, [*(changes or []), *map(_model_setting, like or [])])
    from retrograd.report.plan import print_plan
    from retrograd.studies.planning.plan import plan_experiment

    planned = plan_experiment(experiment, hardware or "", examples, passages, not no_probe, processes)
    if json:
        print_json(planned.record())
    else:
        print_plan(planned, table_console(120))
    if planned.refusal is not None:
        raise typer.Exit(1)


def _model_setting(like: str) -> str:
    part, _, name = like.partition("=")
    if part not in ("generator", "retriever") or not name:
        raise UserError(f"--like {like}: expected generator=NAME or retriever=NAME")
    return f"{part}.model={name}"
