"""The page of a knowledge graph: cut at the best-scored, laid out at once, and text from data stays text."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from tests.page_runs import EVIL

from retrograd.report.graph import write_triples
from retrograd.report.graph_layout import place_nodes
from retrograd.report.graph_page import MOST_EDGES, format_graph_page
from retrograd.studies.extraction.triples import Triple, TripleEvidence
from retrograd.types import UserError


def triple(head: str, tail: str, score: float = 0.5, relation: str = "holds", text: str = "plain") -> Triple:
    evidence = (TripleEvidence("p1", f"label {text}", 0.7),)
    return Triple(head, relation, tail, "", "PERSON", score, f"{head} has {tail} {text}", "s1", evidence)


def graph_of(html: str) -> dict:
    (source,) = re.findall(r'<script type="application/json" id="graph-data">(.*?)</script>', html, re.DOTALL)
    return json.loads(source)


def test_the_page_has_entities_relations_and_evidence(tmp_path: Path) -> None:
    triples = [triple("cup", "tea", 0.9), triple("tea", "leaf", 0.4, "made of"), triple("cup", "tea", 0.7)]
    write_triples(triples, tmp_path / "graph.html")
    html = (tmp_path / "graph.html").read_text()
    graph = graph_of(html)
    assert [node[:2] for node in graph["nodes"]] == [["cup", ""], ["tea", "PERSON"], ["leaf", "PERSON"]]
    assert graph["edges"] == [[0, 1, 0, 0.9], [0, 1, 0, 0.7], [1, 2, 1, 0.4]]
    assert graph["relations"] == ["holds", "made of"]
    assert "3 entities, 3 triples, 2 relations." in html
    assert "0.70 label plain" in html
    assert "Cut:" not in html
    with pytest.raises(UserError, match="exists"):
        write_triples(triples, tmp_path / "graph.html")


def test_a_large_graph_is_cut_at_the_best_scored_and_says_so() -> None:
    triples = [triple(f"a{i}", f"b{i % 50}", i / 10_000) for i in range(MOST_EDGES + 10)]
    html = format_graph_page(triples, "graph")
    edges = graph_of(html)["edges"]
    assert len(edges) == MOST_EDGES
    assert min(edge[3] for edge in edges) == pytest.approx(10 / 10_000)
    assert "these are the 3,000 best-scored of 3,010 triples; what scores below 0.001 is left out" in html


def test_of_equal_scores_the_same_ones_are_shown_in_whatever_order_they_come_and_the_others_are_told() -> None:
    triples = [triple(f"a{i:04}", f"b{i % 50}", 0.5) for i in range(MOST_EDGES + 10)]
    html = format_graph_page(triples, "graph")
    assert html == format_graph_page(triples[::-1], "graph")
    assert "what scores below 0.500 is left out, and 10 that score as much as the last of them." in html


def test_text_from_data_stays_text() -> None:
    html = format_graph_page([triple(EVIL, f"tail {EVIL}", relation=EVIL, text=EVIL)], EVIL)
    assert graph_of(html)["nodes"][0][0] == EVIL
    assert html.count("<script") == 4  # the data, and three of the package
    assert "<img" not in html
    assert "<!-- <script>" not in html


def test_no_triples_make_a_page_that_says_so() -> None:
    assert "There is no triple." in format_graph_page([], "graph")


def test_places_are_finite_distinct_and_the_same_each_time() -> None:
    star = [(0, other) for other in range(1, 40)]
    pairs = [(40, 41), (42, 43), (44, 44)]
    places = place_nodes(46, [*star, *pairs])
    assert np.isfinite(places).all()
    assert len({tuple(place) for place in places.round().tolist()}) == 46
    assert (places == place_nodes(46, [*star, *pairs])).all()
    assert place_nodes(0, []).shape == (0, 2)
    # Nodes with a common edge are nearer to each other than any two are on average.
    linked = np.linalg.norm(places[0] - places[1:40], axis=1).mean()
    rest = np.linalg.norm(places[1:40, None] - places[None, 1:40], axis=2).mean()
    assert linked < rest


def test_parts_do_not_overlap() -> None:
    rings = [[(first + i, first + (i + 1) % 6) for i in range(6)] for first in range(0, 60, 6)]
    places = place_nodes(60, [edge for ring in rings for edge in ring])
    boxes = [(own.min(axis=0), own.max(axis=0)) for own in places.reshape(10, 6, 2)]
    for one in range(10):
        for other in range(one):
            (low, high), (own_low, own_high) = boxes[one], boxes[other]
            assert (low > own_high).any() or (own_low > high).any()


def test_a_part_of_thousands_is_placed_by_samples() -> None:
    rng = np.random.default_rng(1)
    edges = [(node, int(rng.integers(node))) for node in range(1, 2_000)]
    places = place_nodes(2_000, edges)
    assert np.isfinite(places).all()
    linked = np.linalg.norm(np.array([places[a] - places[b] for a, b in edges]), axis=1).mean()
    strangers = np.linalg.norm(places - places[rng.permutation(2_000)], axis=1).mean()
    assert linked < strangers / 2
