"""``retrograd export``: a run's model for other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from retrograd.commands import AsJson, print_json

__all__ = ["Kind", "export"]

Kind = Literal["sentence-transformers", "peft", "merged", "onnx", "trec", "faiss"]
"""The names of `retrograd.studies.export.export.EXPORTS`, which would take seconds to import."""


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or of a saved model.")],
    to: Annotated[Kind, typer.Option(help="For which program.")],
    out: Annotated[Path, typer.Option(help="The new folder.")],
    passages: Annotated[int, typer.Option("-k", "--passages", min=1, help="Passages of a ranking (trec).")] = 100,
    json: AsJson = False,
) -> None:
    """Write a run's model for another program, open it there, and print the largest difference.

    Kinds: sentence-transformers (the retriever), peft (adapters), merged (the generator for transformers, adapters
    merged in), onnx (the retriever's towers), trec (rankings of the test queries), faiss (the passages' vectors).

    Example: `retrograd export runs/joint --to sentence-transformers --out encoder`
    """
    from retrograd.studies.export.export import export as write_export

    written = write_export(run, to, out, passages)
    if json:
        print_json(written.record())
        return
    typer.echo(f"{out}: {len(written.files)} files")
    typer.echo(f"{written.comparison.compared}: the largest difference is {written.comparison.difference:.1e}")
    for limit in written.comparison.limits:
        typer.echo(f"note: {limit}")
