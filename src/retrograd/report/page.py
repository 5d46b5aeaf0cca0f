"""The report of a run for people: a page of Markdown, a picture of its slices, and a few lines on the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.metrics.significance import BootstrapInterval, ScoreInterval
from retrograd.report.figures import new_figure
from retrograd.report.markdown import escaped, table
from retrograd.studies.report import RelationReport, RelationRow, SettingChange, System
from retrograd.studies.slices import Slice
from retrograd.util.files import atomic_file

__all__ = ["draw_slices", "page", "print_report", "save_page"]

_CONFUSIONS = 10
_RELATIONS = 20
_CHANGES = 6
_PICTURE = "slices.png"
_SCORERS = {
    "semeval": "macro-F1 of SemEval-2010 Task 8, nine relations with direction, Other left out of the average",
    "macro": "macro-F1 over the relations of the test data",
    "micro": "micro-F1",
}


def save_page(report: RelationReport, folder: Path) -> None:
    """Write ``report.md`` and its picture."""
    folder.mkdir(parents=True, exist_ok=True)
    draw_slices(report, folder / _PICTURE)
    with atomic_file(folder / "report.md") as temporary:
        temporary.write_text(page(report), encoding="utf-8")


def page(report: RelationReport) -> str:
    """The whole page as Markdown."""
    parts = [
        _headline(report),
        _systems(report),
        _relations(report),
        _confusions(report),
        _slices(report),
        [f"* {escaped(note)}" for note in [*report.notes, *_always_said(report)]],
    ]
    return "\n".join("\n".join([*part, ""]) for part in parts if part)


def _headline(report: RelationReport) -> list[str]:
    run, what = report.run, _SCORERS[report.scorer]
    if report.scorer != "semeval" and report.negative is not None:
        what += f" without {escaped(report.negative)}"
    recipe = escaped(report.recipe)
    return [
        f"# {escaped(report.name)}",
        "",
        f"Recipe {recipe}, seed {report.seed}; {report.items:,} test items, {report.training:,} training instances, "
        f"{report.passages} passages at test time.",
        "",
        f"**{run.score:.1f}**{_range(run.interval)} {what}. Precision {run.precision:.1f}, recall {run.recall:.1f}. "
        f"Invalid answers: {run.invalid_rate:.1f} %.{_negatives(report)}",
    ]


def _negatives(report: RelationReport) -> str:
    if report.negative is None or report.run.negative_rate is None:
        return ""
    return (
        f" {escaped(report.negative)}: {report.negative_share:.1f} % of the gold labels, "
        f"{report.run.negative_rate:.1f} % of the answers."
    )


# ---- systems ------------------------------------------------------------------------------------------------------


def _systems(report: RelationReport) -> list[str]:
    headings = ["system", f"{_metric(report)} [95 %]", "run less this [95 %]", "p", "accuracy"]
    if report.negative is not None:
        name = escaped(report.negative)
        headings += [f"F1 of {name}", f"{name} answered"]
    rows = [[escaped(system.name), *_cells(system)] for system in report.systems]
    lines = ["## Controls and the trivial answer", "", *table([*headings, "invalid"], rows)]
    controls = [system for system in report.systems if system.kind == "control"]
    if controls:
        lines += ["", "Settings in which a control differs from the run:", ""]
        lines += [f"* {escaped(system.name)}: {_changes(system.changes)}" for system in controls]
    return lines


def _cells(system: System) -> list[str]:
    gain = "-" if system.gain is None else f"{system.gain.difference:+.1f}{_range(system.gain, '+')}"
    cells = [f"{system.score:.1f}{_range(system.interval)}", gain]
    cells += ["-" if system.test is None else f"{system.test.p_value:.3f}", f"{system.accuracy:.1f}"]
    if system.negative_f1 is not None and system.negative_rate is not None:
        cells += [f"{system.negative_f1:.1f}", f"{system.negative_rate:.1f} %"]
    return [*cells, f"{system.invalid_rate:.1f} %"]


def _changes(changes: Sequence[SettingChange]) -> str:
    if not changes:
        return "none"
    shown = [f"`{change.name} = {_value(change.control)}`" for change in changes[:_CHANGES]]
    more = f" and {len(changes) - _CHANGES} more in report.json" if len(changes) > _CHANGES else ""
    return ", ".join(shown) + more


def _value(value: object) -> str:
    return "(not there)" if value is None else json.dumps(value, ensure_ascii=False).replace("`", "'")


def _metric(report: RelationReport) -> str:
    return "micro-F1" if report.metric == "micro_f1" else "macro-F1"


def _range(interval: ScoreInterval | BootstrapInterval | None, sign: str = "") -> str:
    return "" if interval is None else f" [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


# ---- relations and confusions -------------------------------------------------------------------------------------


def _relations(report: RelationReport) -> list[str]:
    shown = report.relations[:_RELATIONS]
    rows = [_relation(row, escaped(row.relation)) for row in shown]
    if report.negative_row is not None:
        rows.append(_relation(report.negative_row, f"({escaped(report.negative_row.relation)})"))
    left = len(report.relations) - len(shown)
    lines = ["## Relations", "", *table(["relation", "items", "precision", "recall", "F1"], rows)]
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
            escaped(one.gold),
            "(no valid answer)" if one.answered is None else escaped(one.answered),
            f"{one.items:,}",
            f"{100 * one.share:.1f} %",
        ]
        for one in report.confusions[:_CONFUSIONS]
    ]
    wrong = sum(one.items for one in report.confusions)
    lines = ["## Worst confusions", "", *table(["gold", "answered", "items", "share of gold"], rows, left=2)]
    shown = sum(one.items for one in report.confusions[:_CONFUSIONS])
    return [*lines, "", f"{shown:,} of the {wrong:,} wrong answers; all pairs are in report.json."]


# ---- slices -------------------------------------------------------------------------------------------------------


def _slices(report: RelationReport) -> list[str]:
    controls = [system.name for system in report.systems[1:-1]]
    run = f"{escaped(report.name)} [95 %]"
    headings = ["test items by", "", "items", run, "accuracy", *map(escaped, controls)]
    rows: list[list[str]] = []
    for group in report.slices:
        for number, part in enumerate(group.slices):
            name = escaped(group.name) if number == 0 else ""
            rows.append([name, escaped(part.name), f"{part.items:,}", *_slice_cells(part)])
    lines = ["## Slices", "", *table(headings, rows, left=2), "", f"![score by slice]({_PICTURE})", ""]
    if report.negative is not None:
        lines.append(
            f"The slices by frequency and by trigger, and that of all relations, hold no item of "
            f"{escaped(report.negative)}, so no false alarm on one lowers them: compare them with each other."
        )
    if controls:
        lines.append(
            "† the 95 % interval of the difference from the run leaves out zero; of systems that do not differ, one in "
            "twenty gets it by chance."
        )
    return lines


def _slice_cells(part: Slice) -> list[str]:
    """The run with its interval, then each control, marked where the run differs; accuracy where no score is due."""
    accuracy = f"{part.run.accuracy:.1f}"
    if part.run.score is None:
        return ["-", accuracy, *(f"(accuracy) {one.accuracy:.1f}  " for one in part.controls.values())]
    cells = [f"{part.run.score:.1f}{_range(part.interval)}", accuracy]
    for name, one in part.controls.items():
        gain = part.gains[name]
        cells.append(f"{one.score:.1f} {'†' if gain is not None and gain.excludes_zero else ' '}")
    return cells


def _always_said(report: RelationReport) -> list[str]:
    """What the page itself cannot show."""
    learned = report.learned.triggers
    found = [
        f"Triggers: {sum(map(len, learned.values())):,} words, for {sum(map(bool, learned.values()))} of the "
        f"{len(learned)} relations in {report.training:,} training sentences; the fewer sentences, the more by chance.",
        f"Intervals: percentile bootstrap over test items, {report.resamples:,} draws; differences are paired by item, "
        f"p by permutation. Neither sees the chance of another training seed.",
    ]
    if not any(system.kind == "control" for system in report.systems):
        found.append("No control run was given, so nothing here says what retrieval or training is worth.")
    if report.metric == "macro_f1":
        found.append(
            "In a slice the macro average runs over the relations that the slice's gold labels have, as the scorer "
            "does: slices with other relations are not on one scale."
        )
    if any(part.items < 30 for group in report.slices for part in group.slices):
        found.append("Slices below 30 items are anecdotes, and their intervals too narrow.")
    return found


def draw_slices(report: RelationReport, path: Path) -> None:
    """Every slice with a score as a point with its interval, the controls beside it."""
    parts = [(group, part) for group in report.slices for part in group.slices if part.run.score is not None]
    figure = new_figure(8.5, 1.4 + 0.34 * (len(parts) + 1))
    axes = figure.add_subplot()
    labels = ["all test items", *(f"{group.name}: {part.name}" for group, part in parts)]
    items = [report.items, *(part.items for _, part in parts)]
    places = np.arange(len(labels))
    run = report.run
    scores = np.array([run.score, *(part.run.score for _, part in parts)], dtype=np.float64)
    intervals = [run.interval, *(part.interval for _, part in parts)]
    reach = np.array([_reach(one, score) for one, score in zip(intervals, scores, strict=True)]).T
    name = _plain(report.name)
    bars = [axes.errorbar(scores, places, xerr=reach, fmt="o", color="black", capsize=3, label=name, zorder=3)]
    for number, system in enumerate(report.systems[1:-1]):
        points = [system.score, *(part.controls[system.name].score for _, part in parts)]
        bars += axes.plot(points, places, "sD^vP*X"[number % 7], markersize=5, alpha=0.8, label=_plain(system.name))
    first = [i + 1 for i, (group, _) in enumerate(parts) if i == 0 or group is not parts[i - 1][0]]
    axes.hlines([place - 0.5 for place in first], -2, 102, color="lightgrey", linewidth=0.8)
    names = [f"{_plain(label)} ({count:,})" for label, count in zip(labels, items, strict=True)]
    axes.set_yticks(places, names, fontsize=8)
    axes.set(xlim=(-2, 102), ylim=(len(labels) - 0.5, -0.5), xlabel=f"{_metric(report)}, 95 % interval of the run")
    figure.legend(handles=bars, loc="outside upper center", ncols=3, fontsize=8)
    figure.savefig(path, dpi=130)


def _reach(interval: ScoreInterval | None, score: float) -> tuple[float, float]:
    """How far the interval goes below and above; a percentile interval need not hold the score itself."""
    return (0.0, 0.0) if interval is None else (max(0.0, score - interval.low), max(0.0, interval.high - score))


def _plain(text: str) -> str:
    """Text in which matplotlib finds no formula."""
    return text.replace("$", r"\$")


# ---- terminal -----------------------------------------------------------------------------------------------------


def print_report(report: RelationReport, console: Console) -> None:
    """The systems, and the three worst confusions."""
    lines = Table(box=None, pad_edge=False)
    lines.add_column("system", no_wrap=True)
    for heading in (_metric(report), "95 %", "run less this", "p", "accuracy", "invalid"):
        lines.add_column(heading, justify="right", no_wrap=True)
    for system in report.systems:
        gain = "" if system.gain is None else f"{system.gain.difference:+.1f}{_range(system.gain, '+')}"
        lines.add_row(
            Text(system.name),
            f"{system.score:.1f}",
            Text(_range(system.interval).strip()),
            Text(gain),
            "" if system.test is None else f"{system.test.p_value:.3f}",
            f"{system.accuracy:.1f}",
            f"{system.invalid_rate:.1f} %",
        )
    console.print(lines, highlight=False)
    for one in report.confusions[:3]:
        told = "no valid answer" if one.answered is None else one.answered
        text = f"{one.items} of {one.gold} taken for {told} ({one.share:.0%})"
        console.print(text, highlight=False, markup=False)
    for note in report.notes:
        console.print(f"Note: {note}", highlight=False, markup=False)
