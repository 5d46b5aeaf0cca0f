"""``retrograd index``: build an index on disk, check it, describe it."""

from __future__ import annotations

import shlex
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

    built = build_for(source, out, dtype)
    next_command = f"retrograd search {shlex.quote(str(out))} 'your query'"
    typer.echo(f"{built.passages:,} passages are in {built.version}. Next: {next_command}")


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
    from retrograd.studies.index import check_index, checksums_are_right

    checked = check_index(folder, run)
    typer.echo(f"{checked.folder}: {checked.rows:,} rows are finite and not all zero")
    typer.echo(checksums_are_right(checked.files))
    typer.echo(f"knowledge base and encoder are those of {checked.source}")


@index.command()
def info(folder: IndexFolder) -> None:
    """Describe what an index holds, what it was built from, and how.

    Example: `retrograd index info indexes/joint`
    """
    from retrograd.studies.index import describe_index
    from retrograd.util.machine import readable_bytes

    description = describe_index(folder)
    dtype = str(description.dtype).removeprefix("torch.")
    facts = {
        "folder": str(description.folder),
        "passages": f"{description.rows:,}",
        "vectors": f"{description.dimension} numbers each, {dtype}, {readable_bytes(description.bytes)}",
        "files": f"{description.files}",
        "encoding": description.encoding or "not recorded",
        "knowledge base": description.base_fingerprint,
        "encoder": description.encoder_fingerprint,
        "built by": description.source or "saved from Python or within a run, without the name of the run",
    }
    if description.versions:
        facts["versions"] = ", ".join(description.versions)
    typer.echo("\n".join(f"{name:<15} {value}" for name, value in facts.items()))
