"""Triples as files: JSON Lines, N-Triples, GraphML. Entities with equal names are one node."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import networkx as nx

from retrograd.io import atomic_file, write_jsonl
from retrograd.recipes.extract import Triple
from retrograd.report.ntriples import n_triples
from retrograd.types import UserError

__all__ = ["require_writable", "write_triples"]

_BASE = "urn:retrograd:"


def write_triples(triples: Sequence[Triple], out: Path, base: str = _BASE) -> None:
    """Write ``.jsonl``, ``.nt`` or ``.graphml``, whole or not at all; ``base`` begins the names of N-Triples.

    Raises `UserError` for another suffix, an existing file, and N-Triples without rdflib.
    """
    require_writable(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](triples, out, base)


def require_writable(out: Path) -> None:
    """Raises `UserError` for a suffix that is not known and for an existing file: before a model works for nothing."""
    if out.suffix not in _WRITERS:
        raise UserError(f"{out}: triples are written as {', '.join(_WRITERS)}; name a file with one of these endings")
    if out.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")


def _write_jsonl(triples: Sequence[Triple], out: Path, _: str) -> None:
    write_jsonl(out, (triple.record() for triple in triples))


def _write_ntriples(triples: Sequence[Triple], out: Path, base: str) -> None:
    text = n_triples(triples, lambda kind, name: f"{base}{kind}:{quote(name, safe='')}")
    with atomic_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_graphml(triples: Sequence[Triple], out: Path, _: str) -> None:
    """A directed multigraph: an edge for each triple, what is known of it as the edge's attributes."""
    graph = nx.MultiDiGraph()
    for triple in triples:
        for name, kind in ((triple.head, triple.head_type), (triple.tail, triple.tail_type)):
            graph.add_node(name, **({"type": kind} if kind else {}))
        graph.add_edge(
            triple.head,
            triple.tail,
            relation=triple.relation,
            score=triple.score,
            sentence=triple.sentence,
            source=triple.id,
            neighbours=" ".join(one.id for one in triple.neighbours),
        )
    with atomic_file(out) as temporary:
        nx.write_graphml(graph, temporary)


_WRITERS = {".jsonl": _write_jsonl, ".nt": _write_ntriples, ".graphml": _write_graphml}
