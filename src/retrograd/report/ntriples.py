"""Triples as N-Triples, with their provenance in the terms of PROV-O. Only this file imports rdflib.

A triple is a statement, and is described by reification as RDF 1.1 has it (``rdf:Statement``, ``rdf:subject``,
``rdf:predicate``, ``rdf:object``): every tool reads that, and few read RDF-star. The statement ``prov:wasDerivedFrom``
a quotation for each place that it was read in; a quotation has the sentence (``prov:value``), score and characters, and
``prov:wasQuotedFrom`` leads to the document. There is no time (``prov:generatedAtTime``), so that equal triples make
equal files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from retrograd.report.graph_nodes import Node, find_nodes
from retrograd.studies.extraction.triples import Triple, TripleSource
from retrograd.util.optional import require_package

if TYPE_CHECKING:
    from rdflib import Graph, URIRef

__all__ = ["format_n_triples", "require_rdflib"]

MakeIri = Callable[[str, str], str]
"""Make an IRI of a kind ("entity", "relation", "term", "statement" …) and a name."""


def require_rdflib() -> None:
    """Raise `UserError` where rdflib is not installed."""
    require_package("a file of N-Triples (.nt)", "rdflib", "graph")


def format_n_triples(triples: Sequence[Triple], name: MakeIri) -> str:
    """Return the statements, each also reified with score, sentence, source and neighbours, and with its quotations.

    Lines are sorted, so that equal triples make equal files. Raises `UserError` without rdflib.
    """
    require_rdflib()
    from rdflib import Graph

    graph = Graph()
    nodes = find_nodes(triples)
    for node in nodes.values():
        _add_entity(graph, node, name)
    for number, triple in enumerate(triples):
        _add_statement(graph, triple, number, nodes, name)
    lines = str(graph.serialize(format="nt")).split("\n")
    return "".join(f"{line}\n" for line in sorted(lines) if line)


def _add_entity(graph: Graph, node: Node, name: MakeIri) -> None:
    from rdflib import RDF, RDFS, Literal, URIRef

    entity = URIRef(name("entity", node.id))
    graph.add((entity, RDFS.label, Literal(node.name)))
    if node.kind:
        graph.add((entity, RDF.type, URIRef(name("type", node.kind))))


def _add_statement(
    graph: Graph, triple: Triple, number: int, nodes: Mapping[tuple[str, str], Node], name: MakeIri
) -> None:
    from rdflib import PROV, RDF, Literal, URIRef

    head = URIRef(name("entity", nodes[triple.head, triple.head_type].id))
    tail = URIRef(name("entity", nodes[triple.tail, triple.tail_type].id))
    relation = URIRef(name("relation", triple.relation))
    statement = URIRef(name("statement", f"{triple.id}-{number}"))
    graph.add((head, relation, tail))
    for kind in (RDF.Statement, PROV.Entity):
        graph.add((statement, RDF.type, kind))
    graph.add((statement, RDF.subject, head))
    graph.add((statement, RDF.predicate, relation))
    graph.add((statement, RDF.object, tail))
    graph.add((statement, URIRef(name("term", "score")), Literal(triple.score)))
    graph.add((statement, URIRef(name("term", "sentence")), Literal(triple.sentence)))
    graph.add((statement, URIRef(name("term", "source")), Literal(triple.id)))
    for neighbour in triple.neighbours:
        graph.add((statement, URIRef(name("term", "neighbour")), Literal(neighbour.id)))
    for place, source in enumerate(triple.sources):
        quotation = URIRef(name("quotation", f"{triple.id}-{number}-{place}"))
        graph.add((statement, PROV.wasDerivedFrom, quotation))
        _add_quotation(graph, quotation, source, name)


def _add_quotation(graph: Graph, quotation: URIRef, source: TripleSource, name: MakeIri) -> None:
    from rdflib import PROV, RDF, RDFS, Literal, URIRef

    document = URIRef(name("document", source.document))
    for entity in (quotation, document):
        graph.add((entity, RDF.type, PROV.Entity))
    graph.add((document, RDFS.label, Literal(source.document)))
    graph.add((quotation, PROV.wasQuotedFrom, document))
    graph.add((quotation, PROV.value, Literal(source.text)))
    graph.add((quotation, URIRef(name("term", "source")), Literal(source.id)))
    graph.add((quotation, URIRef(name("term", "score")), Literal(source.score)))
    for part, span in (("", source.span), ("head", source.head), ("tail", source.tail)):
        graph.add((quotation, URIRef(name("term", f"{part}Start" if part else "start")), Literal(span.start)))
        graph.add((quotation, URIRef(name("term", f"{part}End" if part else "end")), Literal(span.end)))
    for neighbour in source.neighbours:
        graph.add((quotation, URIRef(name("term", "neighbour")), Literal(neighbour.id)))
