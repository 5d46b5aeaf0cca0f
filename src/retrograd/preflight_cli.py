"""Commands that look before a run: what is wrong with its data, and what it will cost."""

from __future__ import annotations

import json as writer
import sys
from importlib.metadata import version as version_of
from typing import Annotated

import typer

from retrograd.types import UserError

__all__ = ["Set", "preflight_app", "root"]

preflight_app = typer.Typer()

Set = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: section.setting=value. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"retrograd {version_of('retrograd')}")
        raise typer.Exit
    return wanted


def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """What ``retrograd`` itself understands, without a command."""


@preflight_app.command()
def validate(
    names: Annotated[list[str], typer.Argument(help="A recipe, an experiment file, or data files with --kind.")],
    changes: Set = None,
    kind: Annotated[
        str, typer.Option(help="What bare data files hold: relations, questions, dialogue or corpus.")
    ] = "",
    format: Annotated[str, typer.Option(help="Their format, where it is not to be guessed.")] = "auto",  # noqa: A002
    json: AsJson = False,
) -> None:
    """Check data before a run: malformed records, duplicates, leaks between parts, labels, gold passages, lengths.

    Exit status 1 where a run would break or test data leak into training, 0 with warnings alone.

    Example: `retrograd validate semeval-joint --set data.train=mine.jsonl --set data.labels=from_train`
    """
    from rich.console import Console

    from retrograd.report.validation import print_validation
    from retrograd.studies.validation.validate import validate as validated

    found = validated(names, changes or [], kind, format)
    if json:
        typer.echo(writer.dumps(found.record(), ensure_ascii=False, indent=2))
    else:
        print_validation(found, Console(width=None if sys.stdout.isatty() else 120))
    if not found.sound:
        raise typer.Exit(1)


@preflight_app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or a .toml or .json file.")],
    changes: Set = None,
    hardware: Annotated[
        str, typer.Option(help="h100, h200, a100-80gb, a100-40gb, rtx-4090, t4 or cpu-2-cores; default: this machine.")
    ] = "",
    examples: Annotated[int, typer.Option(min=0, help="Training examples, where the data are not here.")] = 0,
    passages: Annotated[int, typer.Option(min=0, help="Passages of the base, where it is not here.")] = 0,
    processes: Annotated[int, typer.Option(min=1, help="Processes that train, each with such hardware.")] = 1,
    like: Annotated[
        list[str] | None, typer.Option(help="Plan with another model's shape: generator=NAME or retriever=FOLDER.")
    ] = None,
    no_probe: Annotated[bool, typer.Option("--no-probe", help="Compute the hours; time no step of the model.")] = False,
    json: AsJson = False,
) -> None:
    """Say what an experiment will need, before any download: parameters, memory, prompts, steps, hours.

    Exit status 1 where it does not fit into the memory there is, with the part that is too large and what to do.

    Example: `retrograd plan jsa-rag-nq --hardware h100 --passages 21015324 --examples 79168`
    """
    from rich.console import Console

    from retrograd.recipes import named_experiment
    from retrograd.report.plan import print_plan
    from retrograd.studies.planning.plan import plan_experiment

    settings = [*(changes or []), *(_model_setting(one) for one in like or [])]
    found = plan_experiment(
        named_experiment(recipe).with_settings(settings), hardware, examples, passages, not no_probe, processes
    )
    if json:
        typer.echo(writer.dumps(found.record(), ensure_ascii=False, indent=2))
    else:
        print_plan(found, Console(width=None if sys.stdout.isatty() else 120))
    if found.refusal is not None:
        raise typer.Exit(1)


def _model_setting(like: str) -> str:
    part, _, name = like.partition("=")
    if part not in ("generator", "retriever") or not name:
        raise UserError(f"--like {like}: expected generator=NAME or retriever=NAME")
    return f"{part}.model={name}"
