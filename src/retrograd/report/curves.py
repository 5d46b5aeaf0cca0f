"""Presentation of scores of several runs over a setting: a table and a picture with the spread over seeds."""

from __future__ import annotations

from itertools import groupby
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.report.figures import escape_formulas, make_figure
from retrograd.studies.curves import CurveReport

__all__ = ["draw_curves", "print_curves", "save_curve_text"]


def print_curves(report: CurveReport, console: Console) -> None:
    """Print the table and its explanation."""
    table = Table(box=None, pad_edge=False)
    table.add_column("recipe", no_wrap=True)
    for heading in (report.over, "runs", f"mean {report.metric}", "sd", "lowest", "highest"):
        table.add_column(heading, justify="right")
    table.add_column("seeds")
    for point in report.points:
        table.add_row(
            Text(point.name),
            f"{point.value:g}",
            str(len(point.scores)),
            f"{point.mean:.2f}",
            "-" if point.deviation is None else f"{point.deviation:.2f}",
            f"{min(point.scores):.2f}",
            f"{max(point.scores):.2f}",
            ", ".join(str(seed) for seed in point.seeds),
        )
    console.print(table)
    console.print(
        "Official score on each run's own test data, in percent: mean, standard deviation (n - 1) and range over the "
        "runs of one recipe name at one value. A dash: one run says nothing about the spread.",
        highlight=False,
        markup=False,
    )


def save_curve_text(report: CurveReport, path: Path) -> None:
    """Write what `print_curves` prints to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        print_curves(report, Console(file=file, width=110))


def draw_curves(report: CurveReport, path: Path) -> None:
    """Draw one line per recipe name: the mean, a band from lowest to highest, and every run as a dot."""
    figure = make_figure(7.0, 4.8)
    axes = figure.add_subplot()
    for number, (name, group) in enumerate(groupby(report.points, key=lambda point: point.name)):
        points = list(group)
        colour = f"C{number % 10}"
        values = [point.value for point in points]
        axes.plot(values, [point.mean for point in points], marker="o", color=colour, label=escape_formulas(name))
        low, high = ([bound(point.scores) for point in points] for bound in (min, max))
        axes.fill_between(values, low, high, color=colour, alpha=0.2, linewidth=0)
        for point in points:
            axes.scatter([point.value] * len(point.scores), point.scores, color=colour, s=9)
    axes.set(
        xlabel=escape_formulas(report.over), ylabel=f"{report.metric}, percent", title="mean, and range over seeds"
    )
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
