"""Commands that look before a run: what is wrong with its data, and what it will cost."""

from __future__ import annotations

import json as writer
import sys
from typing import Annotated

import typer

__all__ = ["preflight_app"]

preflight_app = typer.Typer()

Set = Annotated[list[str] | None, typer.Option("--set", help="Change one setting: section.setting=value. Repeatable.")]
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of tables.")]


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

    from retrograd.recipes.validate import validate as validated
    from retrograd.report.validation import print_validation

    found = validated(names, changes or [], kind, format)
    if json:
        typer.echo(writer.dumps(found.record(), ensure_ascii=False, indent=2))
    else:
        print_validation(found, Console(width=None if sys.stdout.isatty() else 120))
    if not found.sound:
        raise typer.Exit(1)
