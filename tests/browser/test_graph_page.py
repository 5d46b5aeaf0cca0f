"""The page of a knowledge graph in a browser: lines are clicked and filtered, entities are searched."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.browser.conftest import Observed, OpenPage
from tests.page_runs import EVIL

from retrograd.report.graph_page import MOST_EDGES, save_graph_page
from retrograd.studies.extraction.triples import Triple, TripleEvidence

pytestmark = pytest.mark.integration

looks = pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")])


def triple(head: str, relation: str, tail: str, score: float, text: str = "") -> Triple:
    evidence = (TripleEvidence("p7", f"neighbour of {head}{text}", 0.75),)
    return Triple(head, relation, tail, "", "THING", score, f"The {head} and the {tail}.{text}", "s1", evidence)


TRIPLES = [
    triple("kettle", "contains", "tea", 0.9),
    triple("wheel", "part of", "car", 0.6),
    triple("car", "contains", "letter", 0.2),
]


def write_page(folder: Path, triples: list[Triple]) -> str:
    """Write a page, and return its address."""
    save_graph_page(triples, folder / "graph.html")
    return (folder / "graph.html").as_uri()


def check_width(observed: Observed) -> None:
    """Fail if the page is wider than its window."""
    assert observed.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def place_of(observed: Observed, element: str) -> dict[str, float]:
    """Return where an element of the graph is drawn, from the corner of the graph."""
    return observed.page.evaluate(
        """(id) => {
            const one = document.getElementById('graph')._cyreg.cy.getElementById(id);
            return one.isEdge() ? one.renderedMidpoint() : one.renderedPosition();
        }""",
        element,
    )


@looks
def test_a_clicked_line_shows_its_sentence_and_neighbours(
    width: int, scheme: str, open_page: OpenPage, tmp_path: Path
) -> None:
    observed = open_page(write_page(tmp_path, TRIPLES), width, scheme)
    page = observed.page
    page.locator("#graph").click(position=place_of(observed, "e1"))
    evidence = page.locator("#evidence")
    assert "wheel — part of → car" in evidence.inner_text()
    assert "The wheel and the car." in evidence.inner_text()
    assert "0.75 neighbour of wheel p7" in evidence.inner_text()
    check_width(observed)
    observed.check_accessible()
    observed.check_silent()


def test_lines_are_filtered_by_relation_score_and_entity(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, TRIPLES))
    page = observed.page
    count, rows = page.locator("#count"), page.locator("#triples tbody tr:visible")
    page.get_by_text("These triples as a table").click()
    assert (count.inner_text(), rows.count()) == ("3 of 3 triples", 3)
    page.get_by_role("combobox", name="Relation").select_option(label="contains (2)")
    assert (count.inner_text(), rows.count()) == ("2 of 3 triples", 2)
    page.get_by_label("Least score").fill("0.5")
    assert (count.inner_text(), rows.count()) == ("1 of 3 triples", 1)
    page.get_by_role("button", name="Show all of it").click()
    assert count.inner_text() == "3 of 3 triples"
    page.get_by_label("Entity").fill("CAR")
    assert count.inner_text() == "2 of 3 triples"
    visible = "document.getElementById('graph')._cyreg.cy.nodes(':visible').map((one) => one.data('name'))"
    assert page.evaluate(visible) == ["wheel", "car", "letter"]
    page.get_by_label("Entity").fill("nobody")
    assert count.inner_text() == "0 of 3 triples"
    observed.check_accessible()
    observed.check_silent()


def test_a_clicked_entity_leaves_its_lines_alone(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, TRIPLES))
    observed.page.locator("#graph").click(position=place_of(observed, "n0"))
    assert observed.page.locator("#count").inner_text() == "1 of 3 triples"
    assert observed.page.get_by_label("Entity").input_value() == "kettle"


def test_a_clicked_entity_does_not_bring_those_whose_names_begin_like_its_own(
    open_page: OpenPage, tmp_path: Path
) -> None:
    triples = [triple("Ann", "knows", "Bob", 0.9), triple("Anne", "knows", "Eve", 0.8)]
    observed = open_page(write_page(tmp_path, triples))
    page, count = observed.page, observed.page.locator("#count")
    page.locator("#graph").click(position=place_of(observed, "n0"))
    assert page.get_by_label("Entity").input_value() == "Ann"
    assert count.inner_text() == "1 of 2 triples"
    page.get_by_label("Least score").fill("0.5")  # another filter leaves the choice as it is
    assert count.inner_text() == "1 of 2 triples"
    page.get_by_label("Entity").fill("ann")  # what is typed is part of a name
    assert count.inner_text() == "2 of 2 triples"


def test_evidence_is_reached_by_the_keyboard(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, TRIPLES))
    observed.page.get_by_text("These triples as a table").focus()
    observed.page.keyboard.press("Enter")
    button = observed.page.get_by_role("button", name="Show the evidence of triple 3")
    button.focus()
    observed.page.keyboard.press("Enter")
    assert "car — contains → letter" in observed.page.locator("#evidence").inner_text()


@looks
def test_text_that_would_run_does_not(width: int, scheme: str, open_page: OpenPage, tmp_path: Path) -> None:
    evil = [triple(f"head {EVIL}", f"relation {EVIL}", f"tail {EVIL}", 0.5, EVIL)]
    observed = open_page(write_page(tmp_path, evil), width, scheme)
    page = observed.page
    page.get_by_text("These triples as a table").click()
    page.get_by_role("button", name="Show the evidence of triple 1").click()
    assert "alert(1)" in page.locator("#evidence").inner_text()
    assert page.locator("img").count() == 0
    check_width(observed)
    observed.check_silent()


def test_the_table_has_everything_without_script(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, TRIPLES), 360, script=False)
    page = observed.page
    assert page.locator("#triples tbody tr:visible").count() == 3
    assert "neighbour of kettle" in page.locator("#triples").inner_text()
    assert page.locator("#view:visible, #filter:visible").count() == 0
    check_width(observed)
    observed.check_silent()


def test_thousands_of_lines_are_drawn_and_the_cut_is_told(open_page: OpenPage, tmp_path: Path) -> None:
    many = [triple(f"head{i % 900}", f"r{i % 7}", f"tail{i % 1100}", i / 5000) for i in range(MOST_EDGES + 500)]
    observed = open_page(write_page(tmp_path, many))
    page = observed.page
    assert page.locator("#count").inner_text() == "3000 of 3000 triples"
    assert "3,000 best-scored of 3,500 triples" in page.locator("header").inner_text()
    page.get_by_label("Entity").fill("head17")
    assert 0 < int(page.locator("#count").inner_text().split()[0]) < 200
    observed.check_silent()


def test_a_page_without_triples_says_so(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, []))
    assert "There is no triple." in observed.page.locator("#triples").inner_text()
    observed.check_silent()
