"""The laboratory prints, draws and advises from invented figures."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from retrograd.evaluation.laboratory.measure import Component, Measurement
from retrograd.objectives import Goal
from retrograd.report.laboratory import draw, find_pareto_front, format_advice, print_report
from retrograd.studies.laboratory.lab import EstimatorResult, LabReport


def finding(
    name: str, prior: float | None, generator: float | None, seconds: float, cosine: float = 0.5
) -> EstimatorResult:
    def part(error: float | None) -> Component | None:
        return None if error is None else Component(error**0.5, 0.0, 0.9, 0.0)

    measured = Measurement(name, part(prior), None, part(generator), {"generator_forwards": 5.0})
    return EstimatorResult(measured, seconds, {"prior": cosine, "posterior": None, "generator": None})


def report(*findings: EstimatorResult) -> LabReport:
    return LabReport(
        "tiny", 4, 10, 20, "exact, over all 20 passages (9 distinct prompts)", "the model's own", [*findings]
    )


CLOSE = finding("close and slow", 0.1, 0.1, 9.0)
NEARLY = finding("nearly as close", 0.12, 0.1, 3.0)
FAR = finding("far and quick", 2.0, 1.0, 1.0)
WORSE = finding("slower than the one above and worse", 3.0, 1.0, 2.0)
ALIGNED = finding("noisy but well aligned", 0.5, 0.5, 4.0, cosine=0.9)
NOTHING = finding("frozen", None, 0.01, 0.5)


def test_the_front_holds_what_nothing_else_beats_in_both() -> None:
    assert [one.measured.name for one in find_pareto_front([CLOSE, WORSE, FAR, NEARLY])] == [
        "far and quick",
        "nearly as close",
        "close and slow",
    ]


def test_joint_prompts_count_with_the_error_of_their_step() -> None:
    found = replace(NOTHING, joint_prompt_error=0.5, measured=replace(NOTHING.measured, generator=None))
    assert found.error == pytest.approx((1.0 + 0.5) / 2)


def test_a_part_without_gradient_counts_as_no_update() -> None:
    assert NOTHING.error == pytest.approx((1.0 + 0.01) / 2)


@pytest.mark.parametrize(
    ("findings", "expected"),
    [
        ((CLOSE, FAR), "use close and slow; its gradient is the closest"),
        ((CLOSE, NEARLY, FAR), "use nearly as close (error 0.110, 3.0 s a batch); close and slow is closest"),
        ((CLOSE, ALIGNED), "points best (mean cosine 0.45 against 0.25, 4.0 s)."),
        ((CLOSE, FAR), "is cheaper (9.0 s a batch)."),
        ((NOTHING,), "none of these trains retriever and generator both"),
        ((NOTHING, FAR), "none of these is closer to the exact gradient than no update (best: far and quick"),
    ],
)
def test_the_advice_follows_from_the_figures(findings: tuple[EstimatorResult, ...], expected: str) -> None:
    assert expected in format_advice(report(*findings))


def test_the_table_shows_dashes_and_the_picture_and_figures_are_written(tmp_path: Path) -> None:
    found = report(CLOSE, NOTHING, FAR)
    console = Console(width=200, record=True, file=(tmp_path / "out.txt").open("w", encoding="utf-8"))
    print_report(found, console)
    text = console.export_text()
    lines = [line for line in text.splitlines() if line.startswith(("close", "frozen", "far"))]
    assert [line.split("  ")[0] for line in lines] == ["close and slow", "frozen", "far and quick"]
    assert " - " in lines[1]
    assert "Advice: " in text
    draw(found, tmp_path / "new" / "lab.png")
    assert (tmp_path / "new" / "lab.png").read_bytes().startswith(b"\x89PNG")
    found.save(tmp_path)
    saved = json.loads((tmp_path / "lab.json").read_text())
    assert saved["estimators"][1]["prior"] is None
    assert saved["estimators"][0]["error_seconds"] == pytest.approx(0.9)
    console.file.close()


def test_the_table_marks_other_goals_and_shows_the_distance_from_them() -> None:
    own = {"prior": Component(0.25, 0.5, 0.9, 0.0), "posterior": None, "generator": Component(0.125, 0.0, 0.9, 0.0)}
    token = replace(FAR, measured=replace(FAR.measured, name="RAG-token", goal=Goal.TOKEN_MARGINAL, own=own))
    reader = replace(WORSE, measured=replace(WORSE.measured, name="EMDR2", goal=Goal.OTHER))
    file = io.StringIO()
    print_report(report(CLOSE, token, reader), Console(width=160, file=file))
    lines = file.getvalue().splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("RAG-token †"))
    assert lines[at + 1].split() == ["against", "its", "own", "goal", "0.25", "0.50", "-", "-", "0.12", "0.00"]
    assert any(line.startswith("EMDR2 †") for line in lines)
    assert any(line.startswith("close and slow  ") for line in lines)
    assert f"  RAG-token: {Goal.TOKEN_MARGINAL}" in lines
    alike = io.StringIO()
    print_report(report(CLOSE, NEARLY), Console(width=160, file=alike))
    assert "†" not in alike.getvalue()
