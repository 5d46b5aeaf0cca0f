"""``retrograd convert``: data of any format as JSON Lines of this project's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, FileKind, SettingsOption, print_json

__all__ = ["convert"]


def convert(
    source: Annotated[str, typer.Argument(help="A file or folder of data, or hf:NAME:SPLIT.")],
    out: Annotated[Path, typer.Argument(help="The file to write, .jsonl.")],
    changes: SettingsOption = None,
    kind: Annotated[FileKind | None, typer.Option(help="What the data hold, where it is not to be guessed.")] = None,
    format: Annotated[str, typer.Option(help="Their format, where it is not to be guessed.")] = "auto",  # noqa: A002
    skip_malformed: Annotated[
        bool, typer.Option("--skip-malformed", help="Leave malformed records out; else the first one ends it.")
    ] = False,
    json: AsJson = False,
) -> None:
    """Write relations, questions, dialogues or passages of any format as JSON Lines that every command reads.

    `--set data.fields.question=NAME` says where records have what, as for `validate`.

    Example: `retrograd convert questions.csv train.jsonl`
    """
    from retrograd.data.hub import data_path
    from retrograd.studies.convert import convert as convert_data

    done = convert_data(data_path(source), out, kind, format, changes or [], skip_malformed)
    if json:
        print_json(done.record())
        return
    skipped = f"; {done.skipped:,} malformed ones are left out" if done.skipped else ""
    typer.echo(f"{done.records:,} records of {done.kind} in {out}{skipped}")
