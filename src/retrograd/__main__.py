"""The command line: ``retrograd``, or ``python -m retrograd``."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from retrograd.cli import COMMANDS
from retrograd.types import UserError

__all__ = ["app", "command_line", "main"]


def _print_version(is_wanted: bool) -> bool:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"retrograd {version('retrograd')}")
        raise typer.Exit
    return is_wanted


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Accept the options of ``retrograd`` itself, and show progress in every command."""
    from retrograd.util.progress import show_progress

    show_progress()


def command_line(commands: Sequence[Callable[..., None] | typer.Typer]) -> typer.Typer:
    """Return the command line of the given commands and groups of commands, in their order."""
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
        callback=_options,
        help="Gradients through retrieval: train retriever and generator of a RAG model as one model.\n\n"
        "Example: `retrograd demo`",
    )
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(command)
        else:
            app.command()(command)
    return app


app = command_line(COMMANDS)


def main() -> None:
    """Run the command line; an error that the user can fix is one sentence on stderr and exit status 2.

    Of several processes of one run each names itself.
    """
    name = "retrograd" if os.environ.get("RANK", "0") == "0" else f"retrograd, process {os.environ['RANK']}"
    try:
        app()
    except UserError as error:
        typer.secho(f"{name}: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise
        typer.secho(f"{name}: {error.filename}: {error.strerror}; check the path and its permissions", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
