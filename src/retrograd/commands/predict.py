"""``retrograd predict``: answers to new examples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, DataSettings, Patch, RunFolder, print_json
from retrograd.types import UserError

__all__ = ["predict"]


def predict(
    run: RunFolder,
    data: Annotated[Path, typer.Argument(help="Examples, with or without answers, in any format `train` reads.")],
    patch: Patch = None,
    changes: DataSettings = None,
    out: Annotated[Path | None, typer.Option(help="File for the answers as JSON Lines; default: the screen.")] = None,
    as_json: AsJson = False,
) -> None:
    """Answer new examples, each answer with its passages and their weights.

    Example: `retrograd predict runs/joint new.jsonl --out answers.jsonl`
    """
    from retrograd.studies.answers import predict_file
    from retrograd.util.text_files import write_jsonl

    if out is not None and out.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")
    records = predict_file(run, data, patch, changes or [])
    if out is not None:
        write_jsonl(out, records)
    if as_json:
        print_json({"answers": records} if out is None else {"answers": len(records), "file": out})
    elif out is None:
        for record in records:
            typer.echo(json.dumps(record, ensure_ascii=False))
    else:
        typer.echo(f"{len(records)} answers in {out}")
