"""Pages as HTML: text from data stays text, embedded JSON survives, everything is inside, and the file stays small."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import replace
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path

import pytest
from tests.page_runs import EVIL, KINDS, write_log, write_run

from retrograd.metrics.confidence import CoveragePoint
from retrograd.report.answer_page import format_answer_page, save_answer_page
from retrograd.report.confidence import format_confidence
from retrograd.report.html import MOST_BYTES, embed_json, fit_page
from retrograd.report.page import save_page
from retrograd.report.run_page import format_run_page
from retrograd.studies.report import RelationReport
from retrograd.studies.report_answers import AnswerReport
from retrograd.studies.report_log import overlay_charts, read_log
from retrograd.studies.report_page import RunPage, build_page, build_progress_page
from retrograd.training.run.run_directory import RunDirectory

HARMLESS_ATTRIBUTES = re.compile(r"on\w+|href|src|action|formaction|srcdoc|background|poster|data")


class Elements(HTMLParser):
    """Collect the elements of a page, the text of its scripts, and the text that people read."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.text = ""
        self._inside = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.scripts[-1] += data
        elif self._inside != "style":
            self.text += data


def html_of(page: RunPage) -> str:
    """Return the page as people read it: with plain signs where Jinja escapes them."""
    return unescape(format_run_page(page))


def page_of(tmp_path: Path, kind: str, text: str, finished: bool = True) -> RunPage:
    run = write_run(tmp_path / f"run-{kind}-{finished}", kind, text, finished)
    other = [write_run(tmp_path / f"other-{kind}", kind, text, right=1, seed=1)] if finished else []
    return build_page(run, other, with_vote=False, resamples=100)[0]


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "training"])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_of_the_data_becomes_an_element(kind: str, finished: bool, tmp_path: Path) -> None:
    page = replace(page_of(tmp_path, kind, EVIL, finished), name=EVIL)
    evil, plain = (
        Elements(format_run_page(page)),
        Elements(format_run_page(page_of(tmp_path / "p", kind, "plain", finished))),
    )
    assert [tag for tag, _ in evil.elements] == [tag for tag, _ in plain.elements]
    for tag, attributes in evil.elements:
        risky = {name for name in attributes if HARMLESS_ATTRIBUTES.fullmatch(name)}
        assert risky <= ({"href"} if tag == "a" else set()), (tag, attributes)
        assert (attributes.get("href") or "#").startswith("#")
    assert "alert(1)" in evil.text
    assert "{{ 7 * 7 }}" in evil.text
    # The scripts that run are those of the package, by the hashes of the page's own policy.
    policy = next(
        values["content"] or ""
        for tag, values in evil.elements
        if values.get("http-equiv", "") and "script-src" in (values["content"] or "")
    )
    types = [values.get("type") for tag, values in evil.elements if tag == "script"]
    for script, kind_of in zip(evil.scripts, types, strict=True):
        if kind_of == "application/json":
            assert json.loads(script)
        else:
            assert "alert" not in script
            assert base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() in policy
    assert "default-src 'none'" in policy


def test_embedded_json_survives_and_cannot_end_its_element() -> None:
    embedded = embed_json({"text": EVIL})
    assert json.loads(embedded) == {"text": EVIL}
    assert not set("<>&\u2028") & set(embedded)
    unreal = [float("nan"), float("inf"), -float("inf"), 0.5]
    assert json.loads(embed_json({"values": unreal}), parse_constant=pytest.fail) == {"values": [None, None, None, 0.5]}
    with pytest.raises(TypeError, match="set is no JSON"):
        embed_json({"text": set()})


def test_confidence_on_the_page_is_that_of_the_text_and_calls_no_graded_risk_a_share_of_wrong_answers(
    tmp_path: Path,
) -> None:
    page = page_of(tmp_path, "dialogue", "plain")
    assert page.confidence is not None
    curve = (CoveragePoint(0.75, 0.5, 0.25), CoveragePoint(0.125, 1.0, 0.375))
    confidence = replace(page.confidence, metric="f1", risk=0.375, coverage=0.8, curve=curve)
    section = html_of(replace(page, confidence=confidence)).split('id="confidence"')[1].split("</section>")[0]
    assert "wrong" not in section
    assert "correctness is f1" in section
    assert "80.0% of the 4 examples were given an answer, at a risk of 37.5%." in section
    first = confidence.bins[0]
    assert f"<td>{first.lowest:.3g} to {first.highest:.3g}</td><td>{first.count}</td>" in section
    last = confidence.curve[-1]
    assert f"<td>{last.coverage:.1%}</td><td>{last.risk:.1%}</td><td>{last.confidence:.3g}</td>" in section
    assert '<polyline points="50.00,45.00 100.00,37.50 "></polyline>' in section
    # The text has each of these, too.
    text = " ".join(format_confidence(confidence))
    assert "at a risk of 37.5%." in text
    assert "correctness is f1" in text


def test_lowest_and_highest_are_of_all_points_and_not_of_those_that_are_drawn(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions", finished=False)
    write_log(run, steps=2_000)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    for place, loss in ((1_002, 99.5), (1_003, -7.25)):
        lines[place] = json.dumps(json.loads(lines[place]) | {"loss": loss})
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    page = build_progress_page(run)
    series = page.charts[0].series[0]
    assert (series.lowest, series.highest) == (-7.25, 99.5)
    assert not {-7.25, 99.5} & set(series.values)
    assert "<td>-7.25</td><td>99.5</td>" in format_run_page(page)
    (joined,) = overlay_charts({"run": read_log(RunDirectory(run))})[0].series
    assert (joined.lowest, joined.highest) == (-7.25, 99.5)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "training"])
def test_only_an_unfinished_page_loads_itself_again(finished: bool, tmp_path: Path) -> None:
    html = format_run_page(page_of(tmp_path, "questions", "plain", finished))
    assert ('http-equiv="refresh"' in html) == (not finished)
    assert ("has not ended" in html) == (not finished)


def test_a_page_of_long_texts_stays_small_by_showing_fewer_examples(tmp_path: Path) -> None:
    page = page_of(tmp_path, "dialogue", "plain")
    assert page.sample is not None
    (longest, *_), longer = page.sample.examples, "<&漢" * 400
    line = replace(longest.after[0], title=longer, text=longer)
    one = replace(longest, query=longer, before=(line,) * 3, after=(line,) * 3)
    page = replace(page, sample=replace(page.sample, examples=(one,) * 150))
    html = format_run_page(page)
    assert len(html.encode()) < MOST_BYTES
    shown = html.count('<article class="example"')
    assert 0 < shown < 150
    assert f"{shown} of 150 test examples" in html
    assert fit_page(lambda count: "x" * (count + MOST_BYTES), 8) == "x" * MOST_BYTES


def test_a_page_of_a_long_training_with_150_examples_is_under_a_megabyte(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions", "a few words of text in a passage " * 20, finished=False)
    write_log(run, steps=5_000)
    page = build_progress_page(run)
    assert page.sample is not None
    page = replace(page, sample=replace(page.sample, examples=page.sample.examples * 38))
    html = format_run_page(page)
    assert len(html.encode()) < MOST_BYTES
    assert html.count('<article class="example"') == 152


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "training"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_link_has_its_section(kind: str, finished: bool, tmp_path: Path) -> None:
    page = page_of(tmp_path, kind, "plain", finished)
    assert page.sample is not None
    without = replace(page, sample=replace(page.sample, examples=()))
    for one in (page, without):
        elements = Elements(format_run_page(one)).elements
        links = {attributes["href"] for tag, attributes in elements if tag == "a"}
        assert links <= {f"#{attributes.get('id')}" for _, attributes in elements}
    assert "#neighbours" in format_run_page(page)


def test_nothing_is_lost_on_paper_and_every_class_has_a_use() -> None:
    web = files("retrograd") / "resources" / "web"
    styles = {
        name: re.sub(r"/\*.*?\*/", "", (web / name).read_text(), flags=re.DOTALL)
        for name in ("style.css", "pages.css", "graph.css")
    }
    pages = ("run.html", "study.html", "parts.html", "page.html", "graph.html", "report.js", "graph.js")
    text = "".join((web / name).read_text() for name in pages)
    classes = {one for name in ("pages.css", "graph.css") for one in re.findall(r"\.([a-z][a-z-]+)", styles[name])}
    assert not {one for one in classes if not one.startswith("u-") and one not in text}
    printed = {name: style.partition("@media print {")[2] for name, style in styles.items()}
    assert "overflow: visible" in printed["style.css"]
    assert ".example[hidden] { display: block; }" in printed["pages.css"]
    assert "#triples tr[hidden] { display: table-row; }" in printed["graph.css"]
    for style in printed.values():
        assert "details:not([open])" not in style


def test_half_a_character_does_not_stop_the_page(tmp_path: Path) -> None:
    page = replace(page_of(tmp_path, "questions", "plain"), name="\ud83d half")
    assert "half" in format_run_page(page)


@pytest.mark.parametrize("kind", KINDS)
def test_the_markdown_page_does_without_matplotlib(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run", kind)
    _, report = build_page(run, [write_run(tmp_path / "other", kind, right=1)], False, 100)

    def files(folder: Path) -> tuple[set[str], str]:
        assert report is not None
        save_page(report, folder) if isinstance(report, RelationReport) else save_answer_page(report, folder)
        return {path.name for path in folder.iterdir()}, (folder / "report.md").read_text()

    names, text = files(tmp_path / "with")
    assert {"report.md", "confidence.png"} <= names
    assert "![" in text
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    names, text = files(tmp_path / "without")
    assert names == {"report.md"}
    assert "![" not in text
    assert "Pictures are left out" in text


def test_the_markdown_page_of_answers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    _, report = build_page(run, [write_run(tmp_path / "other", "questions", right=1, seed=3)], False, 100)
    assert isinstance(report, AnswerReport)
    text = format_answer_page(report)
    assert "**50.0** [" in text
    assert "exact match, in percent" in text
    assert re.search(r"\| other +\| +25\.0 \[", text)
    assert "* other: `seed = 3`" in text
    assert "recall@1" in text
    assert "No control run" not in text
