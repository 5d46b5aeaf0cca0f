"""``retrograd extract``: a knowledge graph from text."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.commands import AsJson, RunFolder, print_json

__all__ = ["extract"]


def extract(
    run: RunFolder,
    data: Annotated[
        Path, typer.Argument(help="Marked pairs in any format `train` reads, or text with a list of entities.")
    ],
    out: Annotated[Path, typer.Option(help="File for the triples: .jsonl, .nt (N-Triples) or .graphml.")],
    threshold: Annotated[float, typer.Option(help="Leave out triples less probable than this.")] = 0.0,
    base: Annotated[
        str, typer.Option(help="What IRIs begin with in N-Triples, such as https://example.org/.")
    ] = "urn:retrograd:",
    json: AsJson = False,
) -> None:
    """Read text and write a knowledge graph: triples with their score, sentence and the neighbours that were read.

    Example: `retrograd extract runs/joint pages.jsonl --out graph.graphml`
    """
    from retrograd.report.graph import require_writable, write_triples
    from retrograd.studies.extract import extract as extract_triples

    require_writable(out, base)
    triples, pairs = extract_triples(run, data, threshold)
    write_triples(triples, out, base)
    if json:
        print_json({"triples": len(triples), "pairs": pairs, "file": out})
        return
    typer.echo(f"{len(triples)} triples from {pairs} pairs of entities in {out}")
