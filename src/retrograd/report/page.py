"""The report of a run: a page of Markdown, a picture of its slices, and a few lines on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.experiments.setting_changes import SettingChange
from retrograd.metrics.significance import BootstrapInterval, ScoreInterval
from retrograd.report.confidence import draw_confidence, format_confidence
from retrograd.report.figures import NO_PICTURES, escape_formulas, has_matplotlib, make_figure
from retrograd.studies.report import RelationReport, RelationRow, System
from retrograd.studies.report_answers import AnswerSystem
from retrograd.studies.report_caveats import list_relation_caveats
from retrograd.studies.slices import Slice
from retrograd.util.files import atomic_file
from retrograd.util.markdown import code_span, escape, table_lines

__all__ = [
    "draw_slices",
    "format_changes",
    "format_page",
    "format_range",
    "mark_told",
    "print_report",
    "save_page",
    "slice_cells",
]

_CONFUSIONS = 10
_RELATIONS = 20
_CHANGES = 6
_PICTURE = "slices.png"
_CONFIDENCE_PICTURE = "confidence.png"
_SCORERS = {
    "semeval": "macro-F1 of SemEval-2010 Task 8, nine relations with direction, Other left out of the average",
    "macro": "macro-F1 over the relations of the test data",
    "micro": "micro-F1",
}


def save_page(report: RelationReport, folder: Path) -> None:
    """Write ``report.md`` and, where matplotlib is installed, its pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    has_pictures = has_matplotlib()
    if has_pictures:
        draw_slices(report, folder / _PICTURE)
    if has_pictures and report.confidence is not None:
        draw_confidence(report.confidence, folder / _CONFIDENCE_PICTURE)
    with atomic_file(folder / "report.md") as temporary:
        temporary.write_text(format_page(report, has_pictures), encoding="utf-8")


def format_page(report: RelationReport, has_pictures: bool = True) -> str:
    """Return the whole page as Markdown, with links to its pictures where it has them."""
    notes = [*report.notes, *list_relation_caveats(report), *([] if has_pictures else [NO_PICTURES])]
    parts = [
        _headline(report),
        _systems(report),
        _relations(report),
        _confusions(report),
        _slices(report, has_pictures),
        _confidence(report, has_pictures),
        [f"* {escape(note)}" for note in notes],
    ]
    return "\n".join("\n".join([*part, ""]) for part in parts if part)


def _headline(report: RelationReport) -> list[str]:
    run, what = report.run, _SCORERS[report.scorer]
    if report.scorer != "semeval" and report.negative is not None:
        what += f" without {escape(report.negative)}"
    recipe = escape(report.recipe)
    return [
        f"# {escape(report.name)}",
        "",
        f"Recipe {recipe}, seed {report.seed}; {report.items:,} test items, {report.training:,} training instances, "
        f"{report.passages} passages at test time.",
        "",
        f"**{run.score:.1f}**{format_range(run.interval)} {what}. Precision {run.precision:.1f}, "
        f"recall {run.recall:.1f}. Invalid answers: {run.invalid_rate:.1f} %.{_negatives(report)}",
    ]


def _negatives(report: RelationReport) -> str:
    if report.negative is None or report.run.negative_rate is None:
        return ""
    return (
        f" {escape(report.negative)}: {report.negative_share:.1f} % of the gold labels, "
        f"{report.run.negative_rate:.1f} % of the answers."
    )


# ---- systems ------------------------------------------------------------------------------------------------------


def _systems(report: RelationReport) -> list[str]:
    headings = ["system", f"{_metric(report)} [95 %]", "run less this [95 %]", "p", "accuracy"]
    if report.negative is not None:
        name = escape(report.negative)
        headings += [f"F1 of {name}", f"{name} answered"]
    rows = [[escape(mark_told(system)), *_cells(system)] for system in report.systems]
    lines = ["## Controls and the trivial answer", "", *table_lines([*headings, "invalid"], rows)]
    controls = [system for system in report.systems if system.kind == "control"]
    if controls:
        lines += ["", "Settings in which a control differs from the run:", ""]
        lines += [f"* {escape(system.name)}: {format_changes(system.changes)}" for system in controls]
    return lines


def _cells(system: System) -> list[str]:
    gain = "-" if system.gain is None else f"{system.gain.difference:+.1f}{format_range(system.gain, '+')}"
    cells = [f"{system.score:.1f}{format_range(system.interval)}", gain]
    cells += ["-" if system.test is None else f"{system.test.p_value:.3f}", f"{system.accuracy:.1f}"]
    if system.negative_f1 is not None and system.negative_rate is not None:
        cells += [f"{system.negative_f1:.1f}", f"{system.negative_rate:.1f} %"]
    return [*cells, f"{system.invalid_rate:.1f} %"]


def mark_told(system: System | AnswerSystem) -> str:
    """Return the name of a system, with a mark where it is told the answers."""
    return f"{system.name} (is told)" if system.is_told else system.name


def format_changes(changes: Sequence[SettingChange]) -> str:
    """Return the first settings in which a control differs, with its values."""
    if not changes:
        return "none"
    shown = [code_span(f"{change.name} = {_value(change.control)}") for change in changes[:_CHANGES]]
    more = f" and {len(changes) - _CHANGES} more in report.json" if len(changes) > _CHANGES else ""
    return ", ".join(shown) + more


def _value(value: object) -> str:
    return "(not there)" if value is None else json.dumps(value, ensure_ascii=False)


def _metric(report: RelationReport) -> str:
    return "micro-F1" if report.metric == "micro_f1" else "macro-F1"


def format_range(interval: ScoreInterval | BootstrapInterval | None, sign: str = "") -> str:
    """Return an interval in brackets after a blank; "" for None."""
    return "" if interval is None else f" [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


# ---- relations and confusions -------------------------------------------------------------------------------------


def _relations(report: RelationReport) -> list[str]:
    shown = report.relations[:_RELATIONS]
    rows = [_relation(row, escape(row.relation)) for row in shown]
    if report.negative_row is not None:
        rows.append(_relation(report.negative_row, f"({escape(report.negative_row.relation)})"))
    left = len(report.relations) - len(shown)
    lines = ["## Relations", "", *table_lines(["relation", "items", "precision", "recall", "F1"], rows)]
    if report.negative_row is not None:
        lines += ["", "In brackets: the negative label, which the score does not count."]
    return [*lines, *(["", f"{left} rarer relations are in report.json."] if left else [])]


def _relation(row: RelationRow, name: str) -> list[str]:
    return [name, f"{row.items:,}", f"{row.precision:.1f}", f"{row.recall:.1f}", f"{row.f1:.1f}"]


def _confusions(report: RelationReport) -> list[str]:
    if not report.confusions:
        return ["## Worst confusions", "", "None: every answer is right."]
    rows = [
        [
            escape(confusion.gold),
            "(no valid answer)" if confusion.answered is None else escape(confusion.answered),
            f"{confusion.items:,}",
            f"{100 * confusion.share:.1f} %",
        ]
        for confusion in report.confusions[:_CONFUSIONS]
    ]
    wrong = sum(confusion.items for confusion in report.confusions)
    lines = ["## Worst confusions", "", *table_lines(["gold", "answered", "items", "share of gold"], rows, left=2)]
    shown = sum(confusion.items for confusion in report.confusions[:_CONFUSIONS])
    return [*lines, "", f"{shown:,} of the {wrong:,} wrong answers; all pairs are in report.json."]


# ---- slices -------------------------------------------------------------------------------------------------------


def _slices(report: RelationReport, has_pictures: bool) -> list[str]:
    controls = [system.name for system in report.systems[1:-1]]
    run = f"{escape(report.name)} [95 %]"
    headings = ["test items by", "", "items", run, "accuracy", *map(escape, controls)]
    rows: list[list[str]] = []
    for group in report.slices:
        for number, part in enumerate(group.slices):
            name = escape(group.name) if number == 0 else ""
            rows.append([name, escape(part.name), f"{part.items:,}", *slice_cells(part)])
    lines = ["## Slices", "", *table_lines(headings, rows, left=2)]
    return [*lines, "", f"![score by slice]({_PICTURE})"] if has_pictures else lines


def slice_cells(part: Slice) -> list[str]:
    """Return the cells of a slice: the run with its interval, then each control, marked where the run differs."""
    accuracy = f"{part.run.accuracy:.1f}"
    if part.run.score is None:
        return ["-", accuracy, *(f"(accuracy) {control.accuracy:.1f}  " for control in part.controls.values())]
    cells = [f"{part.run.score:.1f}{format_range(part.interval)}", accuracy]
    for name, control in part.controls.items():
        gain = part.gains[name]
        cells.append(f"{control.score:.1f} {'†' if gain is not None and gain.excludes_zero else ' '}")
    return cells


def _confidence(report: RelationReport, has_pictures: bool) -> list[str]:
    if report.confidence is None:
        return []
    picture = f"![correctness by confidence, and risk by coverage]({_CONFIDENCE_PICTURE})"
    lines = ["## Confidence", "", *format_confidence(report.confidence)]
    return [*lines, "", picture] if has_pictures else lines


def draw_slices(report: RelationReport, path: Path) -> None:
    """Draw every slice that has a score as a point with its interval, the controls beside it."""
    parts = [(group, part) for group in report.slices for part in group.slices if part.run.score is not None]
    figure = make_figure(8.5, 1.4 + 0.34 * (len(parts) + 1))
    axes = figure.add_subplot()
    labels = ["all test items", *(f"{group.name}: {part.name}" for group, part in parts)]
    items = [report.items, *(part.items for _, part in parts)]
    positions = np.arange(len(labels))
    run = report.run
    scores = np.array([run.score, *(part.run.score for _, part in parts)], dtype=np.float64)
    intervals = [run.interval, *(part.interval for _, part in parts)]
    reach = np.array([_error_bar(one, score) for one, score in zip(intervals, scores, strict=True)]).T
    name = escape_formulas(report.name)
    bars = [axes.errorbar(scores, positions, xerr=reach, fmt="o", color="black", capsize=3, label=name, zorder=3)]
    for number, system in enumerate(report.systems[1:-1]):
        points = [system.score, *(part.controls[system.name].score for _, part in parts)]
        bars += axes.plot(
            points, positions, "sD^vP*X"[number % 7], markersize=5, alpha=0.8, label=escape_formulas(system.name)
        )
    first = [i + 1 for i, (group, _) in enumerate(parts) if i == 0 or group is not parts[i - 1][0]]
    axes.hlines([place - 0.5 for place in first], -2, 102, color="lightgrey", linewidth=0.8)
    names = [f"{escape_formulas(label)} ({count:,})" for label, count in zip(labels, items, strict=True)]
    axes.set_yticks(positions, names, fontsize=8)
    axes.set(xlim=(-2, 102), ylim=(len(labels) - 0.5, -0.5), xlabel=f"{_metric(report)}, 95 % interval of the run")
    figure.legend(handles=bars, loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=130)


def _error_bar(interval: ScoreInterval | None, score: float) -> tuple[float, float]:
    """Return how far an interval extends below and above; a percentile interval need not contain the score."""
    return (0.0, 0.0) if interval is None else (max(0.0, score - interval.low), max(0.0, interval.high - score))


# ---- terminal -----------------------------------------------------------------------------------------------------


def print_report(report: RelationReport, console: Console) -> None:
    """Print the systems, and the three worst confusions."""
    lines = Table(box=None, pad_edge=False)
    lines.add_column("system", no_wrap=True)
    for heading in (_metric(report), "95 %", "run less this", "p", "accuracy", "invalid"):
        lines.add_column(heading, justify="right", no_wrap=True)
    for system in report.systems:
        gain = "" if system.gain is None else f"{system.gain.difference:+.1f}{format_range(system.gain, '+')}"
        lines.add_row(
            Text(mark_told(system)),
            f"{system.score:.1f}",
            Text(format_range(system.interval).strip()),
            Text(gain),
            "" if system.test is None else f"{system.test.p_value:.3f}",
            f"{system.accuracy:.1f}",
            f"{system.invalid_rate:.1f} %",
        )
    console.print(lines, highlight=False)
    for one in report.confusions[:3]:
        answer = "no valid answer" if one.answered is None else one.answered
        text = f"{one.items} of {one.gold} taken for {answer} ({one.share:.0%})"
        console.print(text, highlight=False, markup=False)
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
