"""Triples as CSV that ``neo4j-admin database import`` reads: a folder with ``nodes.csv`` and ``relationships.csv``.

    neo4j-admin database import full --nodes=nodes.csv --relationships=relationships.csv neo4j

A node is an ``Entity`` and has its type as a second label. Semicolons, which part the values of labels and of arrays
(``string[]``, ``--array-delimiter``), are commas in such values. White space is single spaces, as the importer wants
``--multiline-fields`` for line ends. All places of a triple stand in arrays of equal length.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path

from retrograd.report.graph_nodes import find_nodes
from retrograd.studies.extraction.triples import Triple, TripleSource
from retrograd.types import Span
from retrograd.util.files import atomic_directory

__all__ = ["save_neo4j"]

_NODES = ("id:ID", "name", "type", ":LABEL")
_RELATIONSHIPS = (
    *(":START_ID", ":END_ID", ":TYPE", "score:double", "sentence", "neighbours:string[]", "pairs:string[]"),
    *("documents:string[]", "spans:string[]", "heads:string[]", "tails:string[]", "scores:double[]"),
)


def save_neo4j(triples: Sequence[Triple], out: Path) -> None:
    """Write the folder, whole or not at all."""
    nodes = find_nodes(triples)
    entities = {node.id: node for node in nodes.values()}.values()
    with atomic_directory(out) as folder:
        labels = (f"Entity;{_in_array(node.kind)}" if node.kind else "Entity" for node in entities)
        rows = ((node.id, node.name, node.kind, label) for node, label in zip(entities, labels, strict=True))
        _write(folder / "nodes.csv", _NODES, rows)
        _write(
            folder / "relationships.csv",
            _RELATIONSHIPS,
            (
                (
                    nodes[triple.head, triple.head_type].id,
                    nodes[triple.tail, triple.tail_type].id,
                    *_properties(triple),
                )
                for triple in triples
            ),
        )


def _properties(triple: Triple) -> tuple[str, ...]:
    sources = triple.sources
    return (
        triple.relation,
        repr(triple.score),
        triple.sentence,
        _array(one.id for one in triple.neighbours),
        _array([source.id for source in sources] or [triple.id]),
        _array(source.document for source in sources),
        *(_array(_places(sources, name)) for name in ("span", "head", "tail")),
        _array(repr(source.score) for source in sources),
    )


def _places(sources: Sequence[TripleSource], name: str) -> list[str]:
    spans: list[Span] = [{"span": one.span, "head": one.head, "tail": one.tail}[name] for one in sources]
    return [f"{span.start}-{span.end}" for span in spans]


def _array(values: Iterable[str]) -> str:
    return ";".join(_in_array(value) for value in values)


def _in_array(value: str) -> str:
    return value.replace(";", ",")


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows([" ".join(cell.split()) for cell in row] for row in rows)
