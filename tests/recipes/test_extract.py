"""From text to a graph that other tools load."""

from __future__ import annotations

import json
from pathlib import Path

import networkx as nx
import pytest
import rdflib
from tests.recipes.conftest import SignModels
from typer.testing import CliRunner

from retrograd import cli
from retrograd.recipes.extract import Neighbour, Triple, extract
from retrograd.report.graph import write_triples
from retrograd.types import UserError

TACRED_LIKE = Path(__file__).parents[2] / "examples" / "tacred_like"
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
        (Neighbour("7", "x", 1.0),),
    ),
    Triple("Ada", "per:title", "countess of “L”", "PERSON", "TITLE", 0.5, "Ada again", "b"),
    Triple("Bob / Co", "knows", "Ada", "", "", 0.25, "Bob knows Ada", "c"),
]


def test_json_lines_hold_everything(tmp_path: Path) -> None:
    write_triples(TRIPLES, tmp_path / "graph.jsonl")
    first = json.loads((tmp_path / "graph.jsonl").read_text(encoding="utf-8").splitlines()[0])
    assert first["neighbours"] == [{"id": "7", "label": "x", "weight": 1.0}]
    assert {**first, "neighbours": ()} == {**vars(TRIPLES[0]), "neighbours": ()}


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
    write_triples(TRIPLES, tmp_path / "graph.nt", base="https://example.org/")
    graph = rdflib.Graph().parse(tmp_path / "graph.nt", format="nt")
    ada = rdflib.URIRef("https://example.org/entity:Ada")
    bob = rdflib.URIRef("https://example.org/entity:Bob%20%2F%20Co")
    assert (bob, rdflib.URIRef("https://example.org/relation:knows"), ada) in graph
    statements = set(graph.subjects(rdflib.RDF.type, rdflib.RDF.Statement))
    assert len(statements) == 3
    scores = {float(str(o)) for o in graph.objects(None, rdflib.URIRef("https://example.org/term:score"))}
    assert scores == {0.75, 0.5, 0.25}
    assert rdflib.Literal("Ada <& co>\nsaid") in set(graph.objects())


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
    triples, asked = extract(tmp_path / "run", tmp_path / "page.jsonl")
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
    assert extract(tmp_path / "run", tmp_path / "page.jsonl", threshold=1.0)[0] == []
    with pytest.raises(UserError, match="threshold is 2; expected a probability"):
        extract(tmp_path / "run", tmp_path / "page.jsonl", threshold=2.0)
