"""Triples as N-Triples. Only this file imports rdflib."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.util import find_spec

from retrograd.studies.extract import Triple
from retrograd.types import UserError

__all__ = ["format_n_triples", "require_rdflib"]


def require_rdflib() -> None:
    """Raise `UserError` where rdflib is not installed."""
    if find_spec("rdflib") is None:
        raise UserError("N-Triples need rdflib; install it with: pip install 'retrograd[graph]'")


def format_n_triples(triples: Sequence[Triple], name: Callable[[str, str], str]) -> str:
    """Return the statements, each also reified as an ``rdf:Statement`` with score, sentence, source and neighbours.

    Lines are sorted, so that equal triples make equal files.

    ``name`` makes an IRI of a kind ("entity", "relation", "term", "statement") and a name. Raises `UserError` without
    rdflib.
    """
    require_rdflib()
    from rdflib import RDF, RDFS, Graph, Literal, URIRef

    graph = Graph()
    for number, triple in enumerate(triples):
        ends = [URIRef(name("entity", end)) for end in (triple.head, triple.tail)]
        relation = URIRef(name("relation", triple.relation))
        statement = URIRef(name("statement", f"{triple.id}-{number}"))
        graph.add((ends[0], relation, ends[1]))
        for node, label, kind in zip(
            ends, (triple.head, triple.tail), (triple.head_type, triple.tail_type), strict=True
        ):
            graph.add((node, RDFS.label, Literal(label)))
            if kind:
                graph.add((node, RDF.type, URIRef(name("type", kind))))
        graph.add((statement, RDF.type, RDF.Statement))
        graph.add((statement, RDF.subject, ends[0]))
        graph.add((statement, RDF.predicate, relation))
        graph.add((statement, RDF.object, ends[1]))
        graph.add((statement, URIRef(name("term", "score")), Literal(triple.score)))
        graph.add((statement, URIRef(name("term", "sentence")), Literal(triple.sentence)))
        graph.add((statement, URIRef(name("term", "source")), Literal(triple.id)))
        for neighbour in triple.neighbours:
            graph.add((statement, URIRef(name("term", "neighbour")), Literal(neighbour.id)))
    lines = str(graph.serialize(format="nt")).split("\n")
    return "".join(f"{line}\n" for line in sorted(lines) if line)
