"""The explorer in Chromium: typed into, clicked, narrow and wide, light and dark, silent and accessible."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from tests.browser.conftest import Observed, OpenPage
from tests.serving.conftest import RunFolders, Served, runs, serving

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

__all__ = ["runs"]

pytestmark = pytest.mark.integration

QUERY = "what is the cup ?"
MARKED = "the <e1>cup</e1> holds <e2>tea</e2> ."
SIZES = [(1440, "light"), (1440, "dark"), (360, "light"), (360, "dark")]


@pytest.fixture
def own(runs: RunFolders, tmp_path: Path) -> RunFolders:
    """Return copies of the runs, into which verdicts may be written."""
    return {name: Path(shutil.copytree(path, tmp_path / name)) for name, path in runs.items()}


@pytest.fixture
def beside(own: RunFolders) -> Iterator[Served]:
    """Serve two runs that answer questions, with verdicts, and the curves of the first."""
    with serving(own["questions"], own["together"], feedback=True, watched=own["questions"]) as one:
        yield one


def address(served: Served) -> str:
    return f"http://127.0.0.1:{served.port}/"


def check(observed: Observed, width: int) -> None:
    """Fail unless the page is silent and accessible, and no wider than the window."""
    observed.check_silent()
    observed.check_accessible()
    assert observed.page.evaluate("document.documentElement.scrollWidth") <= width


def ask(page: Page, query: str) -> None:
    page.fill("#query", query)
    page.click("#ask-answer")
    page.wait_for_selector(".answer")


@pytest.mark.parametrize(("width", "scheme"), SIZES)
def test_every_view_of_two_runs(beside: Served, open_page: OpenPage, width: int, scheme: str) -> None:
    observed = open_page(address(beside), width, scheme)
    page = observed.page
    page.wait_for_selector("#views button")
    check(observed, width)
    page.fill("#k", "6")
    ask(page, QUERY)
    assert page.locator("#results > section h3").all_inner_texts() == ["questions", "together"]
    for place, run in enumerate(("questions", "together")):
        answer = beside.post("/api/answer", {"query": QUERY, "run": run, "k": 6}).record
        column = page.locator("#results > section").nth(place)
        assert column.locator(".said").evaluate("one => one.firstChild.textContent") == (answer["answer"] or "(empty)")
        assert [one.split(". ", 1)[1] for one in column.locator("h4 > span:first-child").all_inner_texts()] == [
            one["title"] for one in answer["passages"]
        ]
        assert column.get_by_text("p(z|x,y)", exact=True).count() == (6 if run == "questions" else 0)
    assert "cup" in page.locator("#results mark").all_inner_texts()
    check(observed, width)
    page.click("[data-view=examples]")
    page.wait_for_selector("#examples tbody tr")
    assert page.locator("#examples tbody tr").count() == 6
    check(observed, width)
    page.click("[data-view=weights]")
    page.click("#weights-form .primary")
    page.wait_for_selector("#weights table")
    check(observed, width)
    page.click("[data-view=curves]")
    page.wait_for_selector("#curves canvas")
    assert "the training has ended" in page.inner_text("#curves-state")
    check(observed, width)


def test_a_search_shows_passages_alone(beside: Served, open_page: OpenPage) -> None:
    page = open_page(address(beside)).page
    page.wait_for_selector("#views button")
    page.fill("#query", QUERY)
    page.fill("#k", "2")
    page.click("#ask-search")
    page.wait_for_selector(".passage")
    assert page.locator(".passage").count() == 4
    assert page.locator(".answer").count() == 0


def test_a_verdict_is_given_and_kept(beside: Served, own: RunFolders, open_page: OpenPage) -> None:
    observed = open_page(address(beside))
    page = observed.page
    page.wait_for_selector("#views button")
    ask(page, QUERY)
    column = page.locator("#results > section").first
    best = column.locator(".passage").first
    best.get_by_text("Right passage").click()
    assert best.get_by_text("Right passage").get_attribute("aria-pressed") == "true"
    column.get_by_label("The right answer").fill("cup")
    column.get_by_role("button", name="Correct").click()
    column.get_by_text("Kept. Thank you.").wait_for()
    check(observed, 1440)
    record = json.loads((own["questions"] / "feedback.jsonl").read_text())
    assert (record["query"], record["verdict"], record["target"]) == (QUERY, "corrected", "cup")
    assert record["right_passages"] == [beside.post("/api/answer", {"query": QUERY}).record["passages"][0]["id"]]


def test_examples_are_filtered_and_asked_again(beside: Served, open_page: OpenPage) -> None:
    from playwright.sync_api import expect

    page = open_page(address(beside)).page
    page.click("[data-view=examples]")
    page.wait_for_selector("#examples tbody tr")
    page.fill("#examples-contains", "wheel")
    page.click("#examples-form button")
    expect(page.locator("#examples tbody tr")).to_have_count(1)
    page.click("#examples tbody button")
    page.wait_for_selector(".answer")
    assert page.input_value("#query") == "who is the wheel ?"


def test_a_relation_is_asked_and_corrected_by_its_label(own: RunFolders, open_page: OpenPage) -> None:
    with serving(own["relations"], feedback=True) as one:
        observed = open_page(address(one))
        page = observed.page
        page.wait_for_selector("#views button")
        assert "<e1>" in page.inner_text("#query-help")
        page.click("#ask-example")
        assert page.input_value("#query").count("<e1>") == 1
        ask(page, MARKED)
        assert page.locator(".said").evaluate("one => one.firstChild.textContent") in ("holds", "part-of")
        assert page.locator("b.entity").count() > 0
        page.get_by_label("The right relation").select_option("part-of")
        page.get_by_role("button", name="Correct").click()
        page.get_by_text("Kept. Thank you.").wait_for()
        check(observed, 1440)
    assert json.loads((own["relations"] / "feedback.jsonl").read_text())["target"] == "part-of"


def test_a_dialogue_goes_on(runs: RunFolders, open_page: OpenPage) -> None:
    from playwright.sync_api import expect

    with serving(runs["dialogues"]) as one:
        observed = open_page(address(one), 360)
        page = observed.page
        page.wait_for_selector("#views button")
        ask(page, "the cup ?")
        page.click("text=Go on with this answer")
        assert page.locator("#turns li").count() == 2
        page.fill("#query", "what ?")
        page.press("#query", "Enter")
        expect(page.locator("#ask-answer")).to_be_enabled()
        check(observed, 360)
        page.click("#ask-over")
        assert page.locator("#turns li").count() == 0


def test_an_error_is_shown_where_it_belongs(runs: RunFolders, open_page: OpenPage) -> None:
    with serving(runs["relations"]) as one:
        observed = open_page(address(one))
        page = observed.page
        page.wait_for_selector("#views button")
        page.fill("#query", "nothing is marked")
        page.click("#ask-answer")
        page.wait_for_selector("#results .problem")
        assert "no entity is marked" in page.inner_text("#results")
        # Chromium itself logs each response that is an error.
        assert all("422" in error for error in observed.errors)


@pytest.mark.parametrize("in_fragment", [True, False])
def test_the_token_is_taken_once_and_hidden(runs: RunFolders, open_page: OpenPage, in_fragment: bool) -> None:
    with serving(runs["questions"], token="a-token") as one:
        observed = open_page(address(one) + ("#token=a-token" if in_fragment else ""))
        page = observed.page
        if not in_fragment:
            page.fill("#token", "a-token")
            page.click("text=Continue")
        page.wait_for_selector("#views button")
        ask(page, QUERY)
        assert page.url == address(one)
        observed.check_accessible()
        page.reload()
        page.wait_for_selector("#views button")
        assert all("401" in error for error in observed.errors)


def test_hostile_text_is_text(tmp_path: Path, runs: RunFolders, open_page: OpenPage) -> None:
    bad = "</script><img src=x onerror=\"console.error('run')\"><b>what"
    with serving(runs["questions"]) as one:
        observed = open_page(address(one))
        page = observed.page
        page.wait_for_selector("#views button")
        ask(page, bad)
        page.click("[data-view=examples]")
        page.wait_for_selector("#examples tbody tr")
        observed.check_silent()


def test_a_training_is_watched_while_it_grows(tmp_path: Path, open_page: OpenPage) -> None:
    from playwright.sync_api import expect

    (tmp_path / "experiment.toml").touch()
    log = tmp_path / "metrics.jsonl"
    log.write_text('{"stage": "training", "step": 1, "loss": 2.5}\n', encoding="utf-8")
    with serving(watched=tmp_path) as one:
        observed = open_page(address(one))
        page = observed.page
        page.wait_for_selector("#curves canvas")
        with log.open("a") as file:
            file.write('{"stage": "training", "step": 2, "loss": 2.0}\n')
            file.write('{"stage": "training", "step": 2, "alarm": "a", "says": "It is stale.", "remedy": "Refresh."}\n')
        page.get_by_text("training, step 2: It is stale. Refresh.").wait_for()
        expect(page.locator("#curves-state")).to_contain_text("step 2")
        check(observed, 1440)


def test_a_training_is_watched_once_however_often_the_page_begins(tmp_path: Path, open_page: OpenPage) -> None:
    (tmp_path / "experiment.toml").touch()
    with serving(watched=tmp_path) as one:
        page = open_page(address(one)).page
        page.wait_for_selector("#views button")
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.evaluate("begin().then(begin)")
        page.wait_for_timeout(3_500)  # each loop asks every two seconds
        assert 1 <= sum("/api/curves" in url for url in asked) <= 2


def test_a_late_reply_does_not_replace_a_newer_one(runs: RunFolders, open_page: OpenPage) -> None:
    from playwright.sync_api import expect

    with serving(runs["questions"]) as one:
        page = open_page(address(one)).page
        page.wait_for_selector("#views button")
        held: list[Route] = []
        page.route("**/api/search", lambda route: held.append(route) if not held else route.continue_())
        page.fill("#query", QUERY)
        page.fill("#k", "1")
        page.click("#ask-search")
        expect(page.locator("#ask-search")).to_be_disabled()
        page.fill("#k", "3")
        page.evaluate("askRuns(true)")
        assert page.locator(".passage").count() == 3
        (late,) = held
        late.continue_()
        expect(page.locator("#ask-search")).to_be_enabled()
        assert page.locator(".passage").count() == 3
