"""Pages about runs and studies in a browser: in both widths and schemes, filtered, searched, without script."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.browser.conftest import Observed, OpenPage
from tests.page_runs import EVIL, KINDS, write_run

from retrograd.report.run_page import save_run_page
from retrograd.report.study_page import save_study_page
from retrograd.studies.report_page import build_page, build_progress_page
from retrograd.studies.report_study import RunState, StudyLine, StudyPage

pytestmark = pytest.mark.integration

looks = pytest.mark.parametrize(("width", "scheme"), [(360, "light"), (360, "dark"), (1440, "light"), (1440, "dark")])


def write_page(folder: Path, kind: str = "relations", text: str = "plain", finished: bool = True) -> str:
    """Write a page, and return its address."""
    run = write_run(folder / "run", kind, text, finished)
    if not finished:
        return save_run_page(build_progress_page(run), folder).as_uri()
    other = write_run(folder / "other", kind, text, right=1, seed=1)
    page, _ = build_page(run, [other], with_vote=False, resamples=100)
    return save_run_page(page, folder).as_uri()


def check_width(observed: Observed) -> None:
    """Fail if the page is wider than its window."""
    assert observed.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


@looks
@pytest.mark.parametrize("kind", KINDS)
def test_the_page_is_silent_accessible_and_fits(
    kind: str, width: int, scheme: str, open_page: OpenPage, tmp_path: Path
) -> None:
    observed = open_page(write_page(tmp_path, kind), width, scheme)
    charts = observed.page.locator("#charts canvas")
    assert charts.count() >= 2
    assert charts.first.bounding_box()["width"] > 200
    observed.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    check_width(observed)
    observed.check_accessible()
    observed.check_silent()


@looks
def test_text_that_would_run_does_not(width: int, scheme: str, open_page: OpenPage, tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS):
        observed = open_page(write_page(tmp_path / str(number), kind, EVIL), width, scheme)
        assert observed.page.evaluate("typeof uPlot") == "function"
        assert observed.page.locator("img").count() == 0
        assert "alert(1)" in observed.page.locator("#examples").inner_text()
        check_width(observed)
        observed.check_silent()


def test_examples_are_filtered_by_label_by_being_wrong_and_by_text(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path))
    page = observed.page
    shown = page.locator("#examples .example:visible")
    count = page.locator("#filter-count")
    assert shown.count() == 4
    assert count.inner_text() == "4 of 4 fit, 4 shown"
    page.get_by_label("Wrong only").check()
    assert shown.count() == 2
    assert "wrong" in shown.first.inner_text()
    page.get_by_label("Label").select_option("relation1 plain")
    assert shown.count() == 1
    page.get_by_label("Wrong only").uncheck()
    assert shown.count() == 2
    page.get_by_label("Label").select_option("")
    page.get_by_label("Text").fill("@ HEAD2 @ OF THE TEST")
    assert shown.count() == 1
    assert count.inner_text() == "1 of 4 fit, 1 shown"
    page.get_by_label("Text").fill("in no example")
    assert shown.count() == 0
    observed.check_accessible()
    observed.check_silent()


def test_more_examples_are_shown_when_asked_for(open_page: OpenPage, tmp_path: Path) -> None:
    page, _ = build_page(write_run(tmp_path / "run", "questions"), [], resamples=100)
    assert page.sample is not None
    page = replace(page, sample=replace(page.sample, examples=page.sample.examples * 30))
    observed = open_page(save_run_page(page, tmp_path).as_uri())
    shown = observed.page.locator("#examples .example:visible")
    assert shown.count() == 12
    observed.page.get_by_role("button", name="Show more").click()
    assert shown.count() == 48
    observed.page.get_by_role("button", name="Show more").click()
    assert shown.count() == 120
    assert observed.page.locator("#show-more:visible").count() == 0


@pytest.mark.parametrize("kind", KINDS)
def test_all_text_is_there_without_script(kind: str, open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, kind), 360, script=False)
    page = observed.page
    assert page.locator("#examples .example:visible").count() == 4
    assert page.locator("#filter:visible").count() == 0
    assert page.locator("#curves table:not(.u-legend)").is_visible()
    assert "over the control other" in page.locator(".verdict").inner_text()
    check_width(observed)
    observed.check_silent()


@looks
def test_an_unfinished_page_loads_itself_again(width: int, scheme: str, open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path, "questions", finished=False), width, scheme)
    assert "has not ended" in observed.page.locator(".live").inner_text()
    assert observed.page.locator("[data-reload]").get_attribute("data-reload") == "10"
    assert observed.page.get_by_label("Stay as it is").is_visible()
    check_width(observed)
    observed.check_accessible()
    observed.check_silent()


def test_a_page_is_loaded_again_unless_it_is_used(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(write_page(tmp_path, "questions", finished=False)).page
    page.clock.install()
    page.reload()
    page.evaluate("window.isTheSame = true")
    page.get_by_label("Stay as it is").check()
    page.clock.run_for(30_000)
    page.get_by_label("Text").fill("passage 1")
    page.get_by_label("Stay as it is").uncheck()
    page.clock.run_for(30_000)
    assert page.evaluate("window.isTheSame") is True
    page.get_by_label("Text").fill("")
    page.get_by_label("Stay as it is").focus()
    with page.expect_navigation():
        page.clock.fast_forward(11_000)
    assert page.evaluate("window.isTheSame") is None


def test_charts_follow_the_scheme_and_the_width(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path), 1440, "light")
    page = observed.page
    page.emulate_media(color_scheme="dark")
    page.set_viewport_size({"width": 500, "height": 900})
    observed.wait_until("document.querySelector('#charts canvas').getBoundingClientRect().width > 400")
    check_width(observed)
    observed.check_silent()


def test_a_printed_page_has_no_form(open_page: OpenPage, tmp_path: Path) -> None:
    observed = open_page(write_page(tmp_path))
    observed.page.emulate_media(media="print")
    assert observed.page.locator("#filter:visible").count() == 0
    assert observed.page.locator("nav:visible").count() == 0
    assert observed.page.locator(".verdict").is_visible()


def test_a_printed_page_has_what_is_closed_and_what_is_filtered_out(open_page: OpenPage, tmp_path: Path) -> None:
    page = open_page(write_page(tmp_path)).page
    page.get_by_label("Wrong only").check()
    assert page.locator("#examples .example:visible").count() == 2
    assert not page.locator("#systems details table").is_visible()
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#examples .example:visible").count() == 4
    assert page.locator("#systems details table").is_visible()
    assert page.locator("#curves table:not(.u-legend)").is_visible()
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    page.emulate_media(media="screen")
    assert not page.locator("#systems details table").is_visible()


@looks
@pytest.mark.parametrize("finished", [True, False])
def test_the_page_of_a_study(finished: bool, width: int, scheme: str, open_page: OpenPage, tmp_path: Path) -> None:
    run = build_progress_page(write_run(tmp_path / "run", "questions"))
    line = StudyLine(f"closed book {EVIL}", 40.0, ("40.0 ± 1.0", "50.0"), None, 1.0, None, 50.0, run.changes)
    page = StudyPage(
        name="study",
        is_finished=finished,
        verdict=("Joint training helped.",),
        facts=run.facts,
        columns=("F1", "exact match"),
        lines=(line, replace(line, name="oracle")),
        charts=run.charts,
        runs=(RunState("closed-book-seed0", "finished", "step 6 of training", 1),),
        left_out={"frozen retriever": EVIL},
        compared_with=run.compared_with,
        changes=run.changes,
        environment=run.environment,
    )
    observed = open_page(save_study_page(page, tmp_path).as_uri(), width, scheme)
    assert observed.page.locator("#charts canvas").count() >= 2
    observed.page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    check_width(observed)
    observed.check_accessible()
    observed.check_silent()
