"""The command line: ``retrograd``, or ``python -m retrograd``."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import wraps
from typing import Annotated, NoReturn, Protocol, runtime_checkable

import typer

from retrograd.cli import COMMANDS
from retrograd.types import UserError
from retrograd.util.files import advise_on_writing

__all__ = ["app", "command_line", "main"]


def _print_version(is_wanted: bool) -> bool:
    if is_wanted:
        from importlib.metadata import version

        typer.echo(f"retrograd {version('retrograd')}")
        raise typer.Exit
    return is_wanted


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show no progress and no messages but errors.")]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the log of the package, at level DEBUG.")]


def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and end.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = False,
) -> None:
    """Accept the options of ``retrograd`` itself, and show progress in every command."""
    from retrograd.util.progress import show_log, show_progress

    show_progress()
    show_log(False)
    _set_output(quiet, verbose)


def _set_output(quiet: bool, verbose: bool) -> None:
    """Show less, or more, than progress on stderr; results on stdout are always printed.

    Raises `UserError` for both at once.
    """
    from retrograd.util.progress import show_log, show_progress

    if quiet and verbose:
        raise UserError("--quiet shows errors alone, and --verbose the log; leave one of them out")
    if quiet:
        show_progress(False)
    if verbose:
        show_log()


@runtime_checkable
class _Context(Protocol):
    """The part of a `typer.Context` that is needed here: what typer hands over is another class than it names."""

    params: dict[str, object]

    def find_root(self) -> _Context: ...


def _with_output_options(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that takes --quiet and --verbose behind its name, too, as people type them there.

    What stands before the name counts with what stands behind it.
    """

    @wraps(function)
    def command(*arguments: object, context: _Context, quiet: bool, verbose: bool, **options: object) -> None:
        before = context.find_root().params
        _set_output(quiet or bool(before.get("quiet")), verbose or bool(before.get("verbose")))
        function(*arguments, **options)

    own = inspect.signature(function, eval_str=True)
    added = {"context": typer.Context, "quiet": Quiet, "verbose": Verbose}
    parameters = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if name == "context" else False,
            annotation=annotation,
        )
        for name, annotation in added.items()
    ]
    vars(command)["__signature__"] = own.replace(parameters=[*own.parameters.values(), *parameters])
    command.__annotations__ = {**function.__annotations__, **added}
    return command


def command_line(commands: Sequence[Callable[..., None] | typer.Typer]) -> typer.Typer:
    """Return the command line of the given commands and groups of commands, in their order."""
    app = typer.Typer(
        no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"]},
        rich_markup_mode="markdown",
        callback=_options,
        help="Gradients through retrieval: train retriever and generator of a RAG model as one model.\n\n"
        "Example: `retrograd demo`",
    )
    for command in commands:
        if isinstance(command, typer.Typer):
            app.add_typer(_group(command))
        else:
            app.command()(_with_output_options(command))
    return app


def _group(commands: typer.Typer) -> typer.Typer:
    """Return a group whose commands take --quiet and --verbose, too."""
    group = typer.Typer(name=commands.info.name, no_args_is_help=True, help=commands.info.help)
    for one in commands.registered_commands:
        if one.callback is not None:
            group.command(one.name)(_with_output_options(one.callback))
    return group


app = command_line(COMMANDS)


def main() -> None:
    """Run the command line; an error that the user can fix is one sentence on stderr and exit status 2.

    Of several processes of one run each names itself.
    """
    _share_processors()
    name = "retrograd" if os.environ.get("RANK", "0") == "0" else f"retrograd, process {os.environ['RANK']}"
    output = sys.stdout
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a sign that the encoding lacks ends no command
    try:
        try:
            app()
        finally:
            sys.stdout.flush()  # here, where a full disk can still be told
    except SystemExit:
        if sys.stdout is output:
            raise
        _end(f"{name}: {_CLOSED}", output)  # click has met the closed pipe, and put another stream there
    except UserError as error:
        _end(f"{name}: {error}", output)
    except Exception as error:
        problem = _describe_failed_writing(error)
        if problem is None:
            raise
        _end(f"{name}: {problem}", output)


def _share_processors() -> None:
    """Have threads that wait for one another sleep after microseconds, unless the environment says how they wait.

    They are those of GNU's OpenMP, which torch's builds for CPUs compute with, and which reads this when torch is
    imported. By default they hold a processor for milliseconds, and where another process needs it, the thread waited
    for cannot run: beside a second process of two threads on two processors, training took more than twice as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "1000")


_CLOSED = "the output was closed before all of it was written; let its reader read to the end"


@runtime_checkable
class _Output(Protocol):
    """Stream that messages of a command go to: that of a terminal, or of a test."""

    def flush(self) -> None: ...

    def fileno(self) -> int: ...


def _end(message: str, output: _Output) -> NoReturn:
    """Print the message on stderr, drop output that cannot be written, and exit with status 2."""
    typer.secho(message, err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
    try:
        output.flush()
    except (OSError, ValueError):
        with suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), output.fileno())  # or Python, at its end, tries again and complains
    sys.exit(2)


def _describe_failed_writing(error: Exception) -> str | None:
    """Return a sentence about a file or output that could not be used; None for any other error."""
    if isinstance(error, BrokenPipeError):
        return _CLOSED
    advice = advise_on_writing(error)
    if isinstance(error, OSError):
        if error.filename is not None:
            advice = advice if advice.startswith("make room") else "check the path and its permissions"
            return f"{error.filename}: {error.strerror}; {advice}"
        return f"{error.strerror}; {advice}" if advice else None
    return f"{error}; {advice}" if advice else None


if __name__ == "__main__":
    main()
