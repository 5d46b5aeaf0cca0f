"""``retrograd index``: build an index on disk, check it, describe it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["index"]

IndexFolder = Annotated[Path, typer.Argument(help="The folder of an index.")]

index = typer.Typer(
    name="index",
    no_args_is_help=True,
    help="Build an index on disk that survives being killed, check it, describe it.\n\n"
    "Example: `retrograd index build runs/joint --out indexes/joint`",
)


@index.command()
def build(
    source: Annotated[str, typer.Argument(help="A finished run's folder, or a recipe or experiment file (untrained).")],
    out: Annotated[Path, typer.Option(help="Folder of the index; a new version is added to what is there.")],
    dtype: Annotated[str, typer.Option(help="How vectors are stored: fp32, bf16 or fp16.")] = "fp32",
) -> None:
    """Embed the whole knowledge base; after a kill, the same command goes on where it was stopped.

    Example: `retrograd index build runs/joint --out indexes/joint --dtype bf16`
    """
    from retrograd.studies.index import build_for

    typer.echo(build_for(source, out, dtype))


@index.command()
def check(
    folder: IndexFolder,
    run: Annotated[
        str | None, typer.Option("--run", help="The run or experiment it belongs to; default: the one that built it.")
    ] = None,
) -> None:
    """Read every byte: checksums, finite numbers, no zeros, and the fingerprints of base and encoder.

    Example: `retrograd index check indexes/joint`
    """
    from retrograd.studies.index import check_index

    typer.echo(check_index(folder, run))


@index.command()
def info(folder: IndexFolder) -> None:
    """Say what an index holds, what it was built from, and how.

    Example: `retrograd index info indexes/joint`
    """
    from retrograd.studies.index import describe_index

    typer.echo(describe_index(folder))
