"""``retrograd export``: a run's model for other programs."""

from __future__ import annotations

import json as json_text
from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="The folder of a finished run, or of a saved model.")],
    to: Annotated[str, typer.Option(help="sentence-transformers, peft, merged, onnx, trec or faiss.")],
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
        typer.echo(json_text.dumps(written.record(), ensure_ascii=False, indent=2))
        return
    typer.echo(f"{out}: {len(written.files)} files")
    typer.echo(f"{written.comparison.compared}: the largest difference is {written.comparison.difference:.1e}")
    for limit in written.comparison.limits:
        typer.echo(f"note: {limit}")
