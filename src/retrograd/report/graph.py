"""Writers of triples as JSON Lines, N-Triples, GraphML, CSV for Neo4j, or an HTML page.

Entities with equal names are one node, unless they have different types (`retrograd.report.graph_nodes`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

from retrograd.report.graph_nodes import find_nodes
from retrograd.report.graph_page import MOST_EDGES, save_graph_page
from retrograd.report.neo4j import save_neo4j
from retrograd.report.ntriples import format_n_triples, require_rdflib
from retrograd.studies.extraction.triples import Triple, TripleSource
from retrograd.types import UserError
from retrograd.util.files import atomic_file
from retrograd.util.optional import require_package
from retrograd.util.text_files import write_jsonl

__all__ = ["MOST_EDGES", "require_writable", "write_triples"]

_BASE = "urn:retrograd:"
_IRI_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:([^\x00-\x20<>\"{}|^`\\]*[/#:])?")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, production 2


def write_triples(triples: Sequence[Triple], out: Path, iri_prefix: str = _BASE) -> None:
    """Write ``.jsonl``, ``.nt``, ``.graphml``, ``.html`` or ``.neo4j``, a folder, whole or not at all.

    ``iri_prefix`` begins the IRIs of N-Triples; a page has the best-scored `MOST_EDGES` triples.

    Raises `UserError` as `require_writable` does.
    """
    require_writable(out, iri_prefix)
    out.parent.mkdir(parents=True, exist_ok=True)
    _WRITERS[out.suffix](triples, out, iri_prefix)


def require_writable(out: Path, iri_prefix: str = _BASE) -> None:
    """Raise `UserError` where `write_triples` could not write; call it before a model works for nothing."""
    if out.suffix not in _WRITERS:
        raise UserError(f"{out}: triples are written as {', '.join(_WRITERS)}; name a file with one of these endings")
    if out.exists():
        raise UserError(f"{out} exists; choose another file with --out, or remove it first")
    if out.suffix == ".graphml":
        require_package("a file of GraphML", "networkx", "graph")
    if out.suffix == ".nt":
        require_rdflib()
        if not _IRI_START.fullmatch(iri_prefix):
            raise UserError(
                f"--base {iri_prefix!r} cannot begin an IRI; expected a scheme, no spaces, and / # or : at the end, as "
                f"in https://example.org/"
            )


def _write_jsonl(triples: Sequence[Triple], out: Path, _: str) -> None:
    write_jsonl(out, (triple.record() for triple in triples))


def _write_ntriples(triples: Sequence[Triple], out: Path, iri_prefix: str) -> None:
    text = format_n_triples(triples, lambda kind, name: f"{iri_prefix}{kind}:{quote(name, safe='')}")
    with atomic_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _write_graphml(triples: Sequence[Triple], out: Path, _: str) -> None:
    """Write a directed multigraph: an edge for each triple, what is known of it as the edge's attributes."""
    import networkx as nx

    graph = nx.MultiDiGraph()
    nodes = find_nodes(triples)
    for node in nodes.values():
        more = {"type": _clean_xml(node.kind)} if node.kind else {}
        graph.add_node(_clean_xml(node.id), name=_clean_xml(node.name), **more)
    for number, triple in enumerate(triples):
        graph.add_edge(
            _clean_xml(nodes[triple.head, triple.head_type].id),
            _clean_xml(nodes[triple.tail, triple.tail_type].id),
            key=number,  # becomes the edge's id, which some readers want to be the only one in the whole file
            relation=_clean_xml(triple.relation),
            score=triple.score,
            sentence=_clean_xml(triple.sentence),
            source=_clean_xml(triple.id),
            neighbours=_clean_xml(" ".join(passage.id for passage in triple.neighbours)),
            sources=_clean_xml("\n".join(_describe_source(source) for source in triple.sources)),
        )
    with atomic_file(out) as temporary:
        nx.write_graphml(graph, temporary)


def _describe_source(source: TripleSource) -> str:
    """Return document, characters of sentence, head and tail, and score, with tabs between them."""
    spans = (f"{span.start},{span.end}" for span in (source.span, source.head, source.tail))
    return "\t".join([" ".join(source.document.split()), *spans, f"{source.score:.4f}"])


def _clean_xml(text: str) -> str:
    """Return a text with U+FFFD for characters that XML cannot hold, such as control characters."""
    return _NO_XML.sub("\ufffd", text)


def _write_page(triples: Sequence[Triple], out: Path, _: str) -> None:
    save_graph_page(triples, out)


def _write_neo4j(triples: Sequence[Triple], out: Path, _: str) -> None:
    save_neo4j(triples, out)


_WRITERS = {
    ".jsonl": _write_jsonl,
    ".nt": _write_ntriples,
    ".graphml": _write_graphml,
    ".html": _write_page,
    ".neo4j": _write_neo4j,
}
