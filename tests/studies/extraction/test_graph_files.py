"""From text to a graph that other tools load."""

from __future__ import annotations

import csv
import json
import math
import re
import sys
from dataclasses import replace
from pathlib import Path

import networkx as nx
import pytest
import rdflib
from tests.sign_models import SignModels
from typer.testing import CliRunner

from retrograd import __main__ as cli
from retrograd.data.relations.instance import RelationInstance
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.report.graph import require_writable, write_triples
from retrograd.studies.extraction.extract import extract
from retrograd.studies.extraction.triples import Place, Triple, TripleEvidence, TripleSource, make_triple
from retrograd.types import Passage, Prediction, Span, UserError

TACRED_LIKE = Path(__file__).parents[3] / "examples" / "tacred_like"
TRIPLES = [
    Triple(
        "Ada",
        "per:title",
        "countess of “L”",
        "PERSON",
        "TITLE",
        0.75,
        "Ada <& co>\nsaid",
        "a",
        (TripleEvidence("7", "x", 1.0),),
    ),
    Triple("Ada", "per:title", "countess of “L”", "PERSON", "TITLE", 0.5, "Ada again", "b"),
    Triple("Bob / Co", "knows", "Ada", "", "", 0.25, "Bob knows Ada", "c"),
]


def test_json_lines_hold_everything(tmp_path: Path) -> None:
    write_triples(TRIPLES, tmp_path / "graph.jsonl")
    first = json.loads((tmp_path / "graph.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["neighbours"] == [{"id": "7", "label": "x", "weight": 1.0}]
    assert {**first, "neighbours": (), "sources": ()} == {**vars(TRIPLES[0]), "neighbours": ()}


def test_graphml_loads_in_networkx(tmp_path: Path) -> None:
    write_triples(TRIPLES, tmp_path / "graph.graphml")
    graph = nx.read_graphml(tmp_path / "graph.graphml")
    assert set(graph.nodes) == {"Ada", "countess of “L”", "Bob / Co"}
    assert graph.nodes["Ada"]["type"] == "PERSON"
    edges = sorted(graph.edges(data=True), key=lambda edge: edge[2]["score"])
    assert [(head, data["relation"], tail, data["score"]) for head, tail, data in edges] == [
        ("Bob / Co", "knows", "Ada", 0.25),
        ("Ada", "per:title", "countess of “L”", 0.5),
        ("Ada", "per:title", "countess of “L”", 0.75),
    ]
    assert edges[2][2]["sentence"] == "Ada <& co>\nsaid"
    assert edges[2][2]["neighbours"] == "7"


def test_n_triples_load_in_rdflib(tmp_path: Path) -> None:
    write_triples(TRIPLES, tmp_path / "graph.nt", iri_prefix="https://example.org/")
    graph = rdflib.Graph().parse(tmp_path / "graph.nt", format="nt")
    ada = rdflib.URIRef("https://example.org/entity:Ada")
    bob = rdflib.URIRef("https://example.org/entity:Bob%20%2F%20Co")
    assert (bob, rdflib.URIRef("https://example.org/relation:knows"), ada) in graph
    statements = set(graph.subjects(rdflib.RDF.type, rdflib.RDF.Statement))
    assert len(statements) == 3
    scores = {float(str(o)) for o in graph.objects(None, rdflib.URIRef("https://example.org/term:score"))}
    assert scores == {0.75, 0.5, 0.25}
    assert rdflib.Literal("Ada <& co>\nsaid") in set(graph.objects())


def test_what_xml_cannot_hold_is_replaced_and_edges_have_ids_of_their_own(tmp_path: Path) -> None:
    odd = [replace(TRIPLES[0], head="A\x01", sentence="c\x00d\ufffe", id="\x0b"), *TRIPLES[1:]]
    write_triples(odd, tmp_path / "graph.graphml")
    graph = nx.read_graphml(tmp_path / "graph.graphml")
    assert "A\ufffd" in graph.nodes
    ids = re.findall(r'<edge [^>]*\bid="(\d+)"', (tmp_path / "graph.graphml").read_text(encoding="utf-8"))
    assert sorted(ids) == ["0", "1", "2"]
    assert "c\ufffdd\ufffd" in {data["sentence"] for _, _, data in graph.edges(data=True)}


def test_equal_triples_make_equal_n_triples(tmp_path: Path) -> None:
    write_triples(TRIPLES, tmp_path / "graph.nt")
    lines = (tmp_path / "graph.nt").read_text(encoding="utf-8").split("\n")
    assert lines[:-1] == sorted(lines[:-1])
    assert all(line.endswith(" .") for line in lines[:-1])


@pytest.mark.parametrize("base", ["foo", "", "http://example.org", "https://ex ample.org/", "urn:<x>:", "/a/"])
def test_a_base_that_begins_no_iri_is_refused(base: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot begin an IRI; expected a scheme"):
        require_writable(tmp_path / "graph.nt", base)
    require_writable(tmp_path / "graph.graphml", base)


@pytest.mark.parametrize(
    ("file", "need", "package"),
    [("graph.nt", r"N-Triples \(\.nt\)", "rdflib"), ("graph.graphml", "GraphML", "networkx")],
)
def test_a_missing_library_is_reported_before_a_model_works(
    file: str, need: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    advice = rf"{need} needs {package}, which is not installed: pip install 'retrograd\[graph\]'"
    with pytest.raises(UserError, match=advice):
        require_writable(tmp_path / file)
    write_triples(TRIPLES, tmp_path / "graph.jsonl")  # which needs neither


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("Cause-Effect(e1,e2)", ("Ada Lovelace", "PERSON", "Cause-Effect", "tea", "DRINK")),
        ("Cause-Effect(e2,e1)", ("tea", "DRINK", "Cause-Effect", "Ada Lovelace", "PERSON")),
        ("per:likes", ("Ada Lovelace", "PERSON", "per:likes", "tea", "DRINK")),
    ],
)
def test_a_relation_runs_from_head_to_tail(label: str, expected: tuple[str, ...]) -> None:
    instance = RelationInstance("a", "Ada \nLovelace likes tea.", Span(0, 13), Span(20, 23), None, "PERSON", "DRINK")
    base = KnowledgeBase.from_passages([Passage("p", "likes", "x"), Passage("q", "other", "y")])
    found = make_triple(
        instance, label, Prediction("a", "likes", math.log(0.5), (1, 0), ("q", "p"), (0.75, 0.25)), base
    )
    assert (found.head, found.head_type, found.relation, found.tail, found.tail_type) == expected
    assert found.score == pytest.approx(0.5)
    assert found.neighbours == (TripleEvidence("q", "other", 0.75), TripleEvidence("p", "likes", 0.25))
    placed = make_triple(
        instance, label, Prediction("a", "likes", math.log(0.5), (0,), ("p",), (1.0,)), base, Place("f.txt", "", 100)
    )
    (source,) = placed.sources
    spans = {"Ada Lovelace": Span(100, 113), "tea": Span(120, 123)}
    assert (source.head, source.tail) == (spans[placed.head], spans[placed.tail])
    assert (source.document, source.span, source.text) == ("f.txt", Span(100, 124), instance.text)


SOURCED = [
    replace(
        TRIPLES[0],
        sources=(
            TripleSource(
                *("a", "pages/a; b.txt", "Ada <& co>\nsaid", Span(40, 55), Span(40, 43), Span(51, 55), 0.75),
                (TripleEvidence("7", "x", 1.0),),
            ),
            TripleSource("b", "c.txt", "Said Ada.", Span(0, 9), Span(5, 8), Span(0, 4), 0.5),
        ),
    ),
    TRIPLES[2],
    replace(TRIPLES[2], head="Ada", head_type="SHIP", score=0.1, id="d"),
]


def test_provenance_is_in_the_terms_of_prov(tmp_path: Path) -> None:
    write_triples(SOURCED, tmp_path / "graph.nt", iri_prefix="https://example.org/")
    graph = rdflib.Graph().parse(tmp_path / "graph.nt", format="nt")
    prov = rdflib.PROV
    (statement,) = {one for one in graph.subjects(prov.wasDerivedFrom) if (one, rdflib.RDF.type, prov.Entity) in graph}
    assert (statement, rdflib.RDF.type, rdflib.RDF.Statement) in graph
    assert graph.value(statement, rdflib.RDF.predicate) == rdflib.URIRef("https://example.org/relation:per%3Atitle")
    places = {}
    for quotation in graph.objects(statement, prov.wasDerivedFrom):
        assert (quotation, rdflib.RDF.type, prov.Entity) in graph
        document = graph.value(quotation, prov.wasQuotedFrom)
        assert (document, rdflib.RDF.type, prov.Entity) in graph
        terms = {
            str(name).rpartition(":")[2]: value.toPython()
            for name, value in graph.predicate_objects(quotation)
            if "/term:" in str(name)
        }
        places[str(graph.value(document, rdflib.RDFS.label))] = (str(graph.value(quotation, prov.value)), terms)
    assert places["pages/a; b.txt"] == (
        "Ada <& co>\nsaid",
        {
            **{"source": "a", "score": 0.75, "neighbour": "7", "start": 40, "end": 55},
            **{"headStart": 40, "headEnd": 43, "tailStart": 51, "tailEnd": 55},
        },
    )
    assert places["c.txt"][1]["headStart"] == 5
    assert not list(graph.subject_objects(prov.generatedAtTime))


def test_graphml_has_all_sources_and_names_of_two_types_are_two_nodes(tmp_path: Path) -> None:
    write_triples(SOURCED, tmp_path / "graph.graphml")
    graph = nx.read_graphml(tmp_path / "graph.graphml")
    assert {name: (data["name"], data.get("type")) for name, data in graph.nodes(data=True)} == {
        "Ada (PERSON)": ("Ada", "PERSON"),
        "Ada (SHIP)": ("Ada", "SHIP"),
        "Ada": ("Ada", None),
        "countess of “L”": ("countess of “L”", "TITLE"),
        "Bob / Co": ("Bob / Co", None),
    }
    data = graph.edges["Ada (PERSON)", "countess of “L”"]
    assert data["sources"].splitlines() == [
        "pages/a; b.txt\t40,55\t40,43\t51,55\t0.7500",
        "c.txt\t0,9\t5,8\t0,4\t0.5000",
    ]


def test_csv_for_neo4j_has_its_headers_and_its_nodes_once(tmp_path: Path) -> None:
    write_triples(SOURCED, tmp_path / "graph.neo4j")
    assert sorted(one.name for one in (tmp_path / "graph.neo4j").iterdir()) == ["nodes.csv", "relationships.csv"]
    tables = {}
    for name in ("nodes", "relationships"):
        text = (tmp_path / "graph.neo4j" / f"{name}.csv").read_text(encoding="utf-8")
        tables[name] = list(csv.DictReader(text.splitlines()))  # no field has a line end
    nodes, edges = tables["nodes"], tables["relationships"]
    assert [(one["id:ID"], one["name"], one[":LABEL"]) for one in nodes] == [
        ("Ada (PERSON)", "Ada", "Entity;PERSON"),
        ("countess of “L”", "countess of “L”", "Entity;TITLE"),
        ("Bob / Co", "Bob / Co", "Entity"),
        ("Ada", "Ada", "Entity"),
        ("Ada (SHIP)", "Ada", "Entity;SHIP"),
    ]
    assert {end for one in edges for end in (one[":START_ID"], one[":END_ID"])} == {one["id:ID"] for one in nodes}
    first = edges[0]
    assert (first[":TYPE"], float(first["score:double"]), first["sentence"]) == ("per:title", 0.75, "Ada <& co> said")
    arrays = {name: first[name].split(";") for name in first if name.endswith("[]")}
    assert arrays == {
        "neighbours:string[]": ["7"],
        "pairs:string[]": ["a", "b"],
        "documents:string[]": ["pages/a, b.txt", "c.txt"],
        "spans:string[]": ["40-55", "0-9"],
        "heads:string[]": ["40-43", "5-8"],
        "tails:string[]": ["51-55", "0-4"],
        "scores:double[]": ["0.75", "0.5"],
    }
    assert (edges[1]["documents:string[]"], edges[1]["pairs:string[]"]) == ("", "c")
    with pytest.raises(UserError, match="exists; choose another"):
        write_triples(SOURCED, tmp_path / "graph.neo4j")


def test_a_type_with_a_semicolon_is_one_label(tmp_path: Path) -> None:
    write_triples([replace(TRIPLES[2], head_type="A;B")], tmp_path / "graph.neo4j")
    assert "Entity;A,B" in (tmp_path / "graph.neo4j" / "nodes.csv").read_text(encoding="utf-8")


def test_the_page_names_all_sources(tmp_path: Path) -> None:
    write_triples(SOURCED, tmp_path / "graph.html")
    assert '<span class="quiet">a; also b</span>' in (tmp_path / "graph.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(("name", "message"), [("graph.ttl", r"\.jsonl, \.nt, \.graphml"), ("there.nt", "exists")])
def test_what_cannot_be_written_says_so(name: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "there.nt").touch()
    with pytest.raises(UserError, match=message):
        write_triples(TRIPLES, tmp_path / name)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["there.nt"]


@pytest.mark.slow
@pytest.mark.parametrize("labels", ["tacred", "semeval"])
def test_a_page_with_entities_becomes_a_graph(labels: str, sign_models: SignModels, tmp_path: Path) -> None:
    files = [f"data.{part}={TACRED_LIKE / f'{part}.json'}" for part in ("train", "test")] + ["data.train_count=0"]
    settings = [
        *(files if labels == "tacred" else ["data.train_count=40", "data.test_count=5"]),
        f"data.labels={labels}",
        f"retriever.model={sign_models.encoder}",
        f"generator.model={sign_models.generator}",
        "generator.max_target_tokens=48",
        "training.passages=2",
        "warm_start.epochs=0",
        "training.precision=fp32",
    ]
    arguments = [word for setting in settings for word in ("--set", setting)]
    result = CliRunner().invoke(cli.app, ["train", "semeval-joint", "--out", str(tmp_path / "run"), *arguments])
    assert result.exit_code == 0, result.output
    page = [
        {"id": "p1", "text": "Ada Nwosu works for Pelham Press in Leeds.", "entities": [
            {"start": 0, "end": 9, "type": "PERSON"}, {"start": 20, "end": 32, "type": "ORGANIZATION"},
            {"start": 36, "end": 41, "type": "CITY"}]},
        {"id": "p2", "text": "It rained.", "entities": []},
    ]  # fmt: skip
    (tmp_path / "page.jsonl").write_text("".join(json.dumps(one) + "\n" for one in page))
    whole = extract(tmp_path / "run", tmp_path / "page.jsonl")
    triples, asked = whole.triples, whole.pairs
    assert asked == (6 if labels == "tacred" else 3)  # SemEval's labels say the direction
    for triple in triples:
        assert triple.relation not in ("no_relation", "Other")
        assert "(" not in triple.relation
        assert triple.head in triple.sentence
        assert 0 < triple.score <= 1
        assert len(triple.neighbours) == 2
    out = tmp_path / "graph.graphml"
    found = CliRunner().invoke(
        cli.app, ["extract", str(tmp_path / "run"), str(tmp_path / "page.jsonl"), "--out", str(out)]
    )
    assert found.output.splitlines()[-1] == f"{len(triples)} triples from {asked} pairs of entities in {out}"
    assert nx.read_graphml(out).number_of_edges() == len(triples)
    assert extract(tmp_path / "run", tmp_path / "page.jsonl", threshold=1.0).triples == []
    with pytest.raises(UserError, match="threshold is 2; expected a probability"):
        extract(tmp_path / "run", tmp_path / "page.jsonl", threshold=2.0)
