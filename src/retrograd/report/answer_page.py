"""The report of a run with free answers: a page of Markdown, and a few lines on the terminal."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.evidence import metric_name
from retrograd.report.confidence import draw_confidence, format_confidence
from retrograd.report.figures import NO_PICTURES, has_matplotlib
from retrograd.report.page import format_changes, format_range, mark_told, slice_cells
from retrograd.studies.report_answers import AnswerReport, AnswerSystem
from retrograd.studies.report_caveats import list_answer_caveats
from retrograd.util.files import atomic_file
from retrograd.util.markdown import escape, table_lines

__all__ = ["format_answer_page", "print_answer_report", "save_answer_page"]

_PICTURE = "confidence.png"


def save_answer_page(report: AnswerReport, folder: Path) -> None:
    """Write ``report.md`` and, where matplotlib is installed, its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    has_picture = has_matplotlib() and report.confidence is not None
    if has_picture and report.confidence is not None:
        draw_confidence(report.confidence, folder / _PICTURE)
    with atomic_file(folder / "report.md") as temporary:
        temporary.write_text(format_answer_page(report, has_picture), encoding="utf-8")


def format_answer_page(report: AnswerReport, has_picture: bool = True) -> str:
    """Return the whole page as Markdown, with a link to its picture where it has one."""
    notes = [*report.notes, *list_answer_caveats(report)]
    if report.confidence is not None and not has_picture:
        notes.append(NO_PICTURES)
    parts = [
        _headline(report),
        _systems(report),
        _retrieval(report),
        _slices(report),
        _confidence(report, has_picture),
        [f"* {escape(note)}" for note in notes],
    ]
    return "\n".join("\n".join([*part, ""]) for part in parts if part)


def _headline(report: AnswerReport) -> list[str]:
    run = report.run
    return [
        f"# {escape(report.name)}",
        "",
        f"Recipe {escape(report.recipe)}, seed {report.seed}; {report.items:,} test examples, {report.training:,} "
        f"training examples, {report.passages} passages at test time.",
        "",
        f"**{run.score:.1f}**{format_range(run.interval)} {metric_name(report.metric)}, in percent.",
    ]


def _systems(report: AnswerReport) -> list[str]:
    others = [name for name in report.run.scores if name != report.metric]
    headings = ["system", f"{metric_name(report.metric)} [95 %]", "run less this [95 %]", "p"]
    rows = [
        [escape(mark_told(one)), *_cells(one), *(f"{one.scores[name]:.1f}" for name in others)]
        for one in report.systems
    ]
    lines = ["## Controls and the trivial answer", ""]
    lines += table_lines([*headings, *(escape(metric_name(name)) for name in others)], rows)
    controls = [one for one in report.systems if one.kind == "control"]
    if controls:
        lines += ["", "Settings in which a control differs from the run:", ""]
        lines += [f"* {escape(one.name)}: {format_changes(one.changes)}" for one in controls]
    return lines


def _cells(system: AnswerSystem) -> list[str]:
    gain = "-" if system.gain is None else f"{system.gain.difference:+.1f}{format_range(system.gain, '+')}"
    return [
        f"{system.score:.1f}{format_range(system.interval)}",
        gain,
        "-" if system.test is None else f"{system.test.p_value:.3f}",
    ]


def _retrieval(report: AnswerReport) -> list[str]:
    scores = report.retrieval | {f"citations: {name}": value for name, value in report.citations.items()}
    rows = [[escape(name), f"{value:.1f}"] for name, value in scores.items()]
    return ["## Retrieval", "", *table_lines(["score", "%"], rows)] if rows else []


def _slices(report: AnswerReport) -> list[str]:
    if not report.slices:
        return []
    controls = [one.name for one in report.systems if one.kind == "control"]
    headings = ["test examples by", "", "items", f"{escape(report.name)} [95 %]", "exact", *map(escape, controls)]
    rows = [
        [escape(group.name) if number == 0 else "", escape(part.name), f"{part.items:,}", *slice_cells(part)]
        for group in report.slices
        for number, part in enumerate(group.slices)
    ]
    return ["## Slices", "", *table_lines(headings, rows, left=2)]


def _confidence(report: AnswerReport, has_picture: bool) -> list[str]:
    if report.confidence is None:
        return []
    lines = ["## Confidence", "", *format_confidence(report.confidence)]
    return [*lines, "", f"![correctness by confidence, and risk by coverage]({_PICTURE})"] if has_picture else lines


def print_answer_report(report: AnswerReport, console: Console) -> None:
    """Print the systems, what is retrieved, and the notes."""
    table = Table(box=None, pad_edge=False)
    table.add_column("system", no_wrap=True)
    for heading in (metric_name(report.metric), "95 %", "run less this", "p"):
        table.add_column(heading, justify="right", no_wrap=True)
    for system in report.systems:
        score, gain, p = _cells(system)
        value, _, interval = score.partition(" ")
        table.add_row(Text(mark_told(system)), value, Text(interval), Text(gain), p)
    console.print(table, highlight=False)
    for name, value in report.retrieval.items():
        console.print(f"{name} {value:.1f} %", highlight=False, markup=False)
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
