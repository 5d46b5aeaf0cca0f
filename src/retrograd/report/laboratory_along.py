"""Presentation of bias and variance along a run: a table for each part of the gradient, and a picture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.laboratory.measure import Component
from retrograd.report.figures import escape_formulas, make_figure
from retrograd.report.laboratory import mark_goal
from retrograd.studies.laboratory.along import Moment

if TYPE_CHECKING:
    from matplotlib.lines import Line2D

__all__ = ["draw_along", "print_along"]

_PARTS = ("prior", "posterior", "generator")


def print_along(moments: Sequence[Moment], console: Console) -> None:
    """Print a table for each part: estimators down, moments across; in a cell relative bias, relative variance and
    trace.
    """
    report = moments[0].report
    console.print(
        f"{report.name}: {report.queries} training queries, {report.base_size} passages, {report.redraws} redraws, "
        f"{len(moments)} moments.\nReference at the first: {report.reference}.\n"
        f"Posterior retriever: {report.posterior}.\n"
        f"Each cell: bias and variance relative to the exact gradient, and tr Cov itself; a dash: no gradient.\n"
        f"†: maximises something else than log p(y|x), so that its distance from this gradient is no mistake.",
        highlight=False,
        markup=False,
    )
    marked = {one.measured.name: mark_goal(one.measured) for moment in moments for one in moment.report.findings}
    for part in _PARTS:
        rows = {name: _components(moments, name, part) for name in _estimator_names(moments)}
        if not any(any(row) for row in rows.values()):
            continue
        table = Table(title=part, title_justify="left", box=None, pad_edge=False)
        table.add_column("estimator", no_wrap=True)
        for moment in moments:
            table.add_column(Text(moment.name), justify="right")
        for name, row in rows.items():
            table.add_row(Text(marked[name]), *(_format_cell(component) for component in row))
        console.print(table)


def draw_along(moments: Sequence[Moment], path: Path) -> None:
    """Draw tr Cov over the moments, one line an estimator and one panel a part; no line without variance."""
    figure = make_figure(12.0, 4.5)
    positions = range(len(moments))
    lines: dict[str, Line2D] = {}
    parts = [
        part for part in _PARTS if any(any(_components(moments, name, part)) for name in _estimator_names(moments))
    ]
    for axes, part in zip(figure.subplots(1, len(parts), squeeze=False)[0], parts, strict=True):
        for number, name in enumerate(_estimator_names(moments)):
            traces = [0.0 if one is None else one.trace for one in _components(moments, name, part)]
            if max(traces) > 0:
                line = axes.plot(positions, traces, marker="o", color=f"C{number % 10}")[0]
                line.set_linestyle(("-", "--", ":")[number // 10 % 3])
                lines[name] = line
        axes.set(title=part, yscale="log" if axes.lines else "linear")
        axes.set_xticks(list(positions), [escape_formulas(moment.name) for moment in moments], rotation=60, ha="right")
    figure.axes[0].set_ylabel("tr Cov of the estimate")
    figure.legend(
        list(lines.values()), [escape_formulas(name) for name in lines], loc="outside right upper", fontsize="small"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def _estimator_names(moments: Sequence[Moment]) -> list[str]:
    """Return the names of all estimators that were measured at any moment, in order."""
    return list(dict.fromkeys(finding.measured.name for one in moments for finding in one.report.findings))


def _components(moments: Sequence[Moment], name: str, part: str) -> list[Component | None]:
    return [
        next((one.measured.parts[part] for one in moment.report.findings if one.measured.name == name), None)
        for moment in moments
    ]


def _format_cell(component: Component | None) -> str:
    if component is None:
        return "-"
    return f"{component.relative_bias:.2g} / {component.relative_variance:.2g} / {component.trace:.2g}"
