"""``retrograd extract``: a knowledge graph from text."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from retrograd.commands import AsJson, RunFolder, print_json

if TYPE_CHECKING:
    from retrograd.studies.extraction.extract import Extraction
    from retrograd.studies.extraction.sources import Pairing

__all__ = ["extract"]


def extract(
    run: RunFolder,
    data: Annotated[
        list[Path],
        typer.Argument(
            help="Plain text with --ner (.txt, .md, folders); else marked pairs in any format `train` reads, or text "
            "with a list of entities."
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            help="Where the triples go: .jsonl, .nt (N-Triples with PROV-O), .graphml, .html, or .neo4j, a folder of "
            "CSV for neo4j-admin."
        ),
    ],
    ner: Annotated[
        str | None,
        typer.Option(help="What recognises entities: spacy:PACKAGE or FOLDER, gliner:FOLDER, gazetteer:FILE."),
    ] = None,
    within: Annotated[
        str, typer.Option(help="How far apart two entities may stand: sentence, 3 (sentences), or '40 words'.")
    ] = "sentence",
    language: Annotated[
        str, typer.Option(help="Language of the text, for its sentence ends; default: the recogniser's, or en.")
    ] = "",
    type_: Annotated[
        list[str] | None,
        typer.Option("--type", help="A recognised type under training's name: ORG=ORGANIZATION. Repeatable."),
    ] = None,
    any_pair: Annotated[
        bool, typer.Option("--any-pair", help="Ask pairs of types as well that training never shows in a relation.")
    ] = False,
    merge: Annotated[
        str, typer.Option(help="Whose mentions of one entity become one: none, those of a document, or of all.")
    ] = "document",
    threshold: Annotated[float, typer.Option(help="Leave out triples less probable than this.")] = 0.0,
    base: Annotated[
        str, typer.Option(help="What IRIs begin with in N-Triples, such as https://example.org/.")
    ] = "urn:retrograd:",
    json: AsJson = False,
) -> None:
    """Read text and write a knowledge graph: triples with their score, their places and the neighbours that were read.

    Example: `retrograd extract runs/joint page.txt --ner spacy:en_core_web_sm --out graph.html`
    """
    from retrograd.report.graph import require_writable, write_triples
    from retrograd.studies.extraction.extract import extract as extract_triples
    from retrograd.studies.extraction.sources import Pairing, parse_types

    require_writable(out, base)
    pairing = Pairing(within, language, parse_types(type_ or ()), any_pair)
    if ner is None:
        _require_default(pairing)
    found = extract_triples(run, data, ner, pairing, threshold, merge)
    write_triples(found.triples, out, base)
    if json:
        scores = None if found.scores is None else found.scores.record()
        counts = {"triples": len(found.triples), "pairs": found.pairs, "documents": found.documents}
        print_json({**counts, "file": out, "scores": scores})
    else:
        typer.echo(_describe(found, out))


def _require_default(pairing: Pairing) -> None:
    """Raise `UserError` for options that do nothing without a recogniser."""
    from retrograd.studies.extraction.sources import Pairing
    from retrograd.types import UserError

    if pairing != Pairing():
        raise UserError(
            "--within, --language, --type and --any-pair are about entities that are recognised; name what recognises "
            "them with --ner, or leave these options out"
        )


def _describe(found: Extraction, out: Path) -> str:
    from retrograd.report.graph import MOST_EDGES

    lines = []
    if found.scores is not None:
        over = "1 document" if found.scores.documents == 1 else f"{found.scores.documents} documents"
        lines.append(f"triples   {found.scores.triples}")
        if found.scores.pairs is not None:
            lines.append(f"pairs     {found.scores.pairs}")
        lines.append(f"over {over} with gold relations")
    is_cut = out.suffix == ".html" and len(found.triples) > MOST_EDGES
    cut = f"; the page shows the {MOST_EDGES:,} best-scored, other formats have all" if is_cut else ""
    if found.takes_all and found.triples:
        lines.append(
            "Training has no negative label, so each pair became a triple, in both orders. Add pairs without a "
            "relation, and pairs in the wrong order, under a label of their own, and name it as data.negative."
        )
    lines.append(f"{len(found.triples)} triples from {found.pairs} pairs of entities in {out}{cut}")
    return "\n".join(lines)
