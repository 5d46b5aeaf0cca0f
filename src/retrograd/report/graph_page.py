"""Triples as an HTML page: a graph to look at, filter and click, and the same triples as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from retrograd.report.graph_layout import place_nodes
from retrograd.report.graph_nodes import find_nodes
from retrograd.report.html import render, write_page
from retrograd.studies.extraction.triples import Triple

__all__ = ["MOST_EDGES", "format_graph_page", "save_graph_page"]

MOST_EDGES = 3_000
"""The most triples of a page; of more the best-scored are shown."""

_NEIGHBOURS = 5


def save_graph_page(triples: Sequence[Triple], out: Path) -> None:
    """Write the page, whole or not at all."""
    write_page(format_graph_page(triples, out.stem), out)


def format_graph_page(triples: Sequence[Triple], name: str) -> str:
    """Return the page as HTML with at most `MOST_EDGES` triples, the best-scored ones, and says where it is cut."""
    ordered = sorted(triples, key=_order)
    shown, left = ordered[:MOST_EDGES], ordered[MOST_EDGES:]
    nodes = find_nodes(shown)
    types = {node.id: node.kind for node in nodes.values()}
    relations = [relation for relation, _ in Counter(triple.relation for triple in shown).most_common()]
    number, relation_number = ({one: place for place, one in enumerate(names)} for names in (types, relations))
    ends = [
        (number[nodes[triple.head, triple.head_type].id], number[nodes[triple.tail, triple.tail_type].id])
        for triple in shown
    ]
    places = place_nodes(len(types), ends).round().astype(int).tolist()
    graph = {
        "nodes": [[entity, kind, *place] for (entity, kind), place in zip(types.items(), places, strict=True)],
        "edges": [
            [*pair, relation_number[triple.relation], round(triple.score, 4)]
            for pair, triple in zip(ends, shown, strict=True)
        ],
        "relations": relations,
    }
    counts = Counter(triple.relation for triple in shown)
    context = {
        "title": f"{name} · retrograd",
        "name": name,
        "triples": shown,
        "total": len(triples),
        "least": shown[-1].score if shown else 0.0,
        "tied": sum(triple.score == shown[-1].score for triple in left),
        "entities": len(types),
        "relations": [(relation, counts[relation]) for relation in relations],
        "neighbours": _NEIGHBOURS,
        "graph": graph,
    }
    return render("graph.html", context, ["cytoscape.min.js", "graph.js", "print.js"], ["style.css", "graph.css"])


def _order(triple: Triple) -> tuple[float, str, str, str, str, str, str]:
    """Return what puts the best-scored first and equal scores by name, in whatever order they come."""
    return (-triple.score, triple.head, triple.relation, triple.tail, triple.head_type, triple.tail_type, triple.id)
