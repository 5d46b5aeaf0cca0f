"""Presentation of the laboratory: a table, a picture with the Pareto front, and one sentence of advice."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.laboratory.measure import Component, Measurement
from retrograd.objectives import Goal
from retrograd.report.figures import escape_formulas, make_figure
from retrograd.studies.laboratory.lab import EstimatorResult, LabReport

__all__ = ["draw", "find_pareto_front", "format_advice", "mark_goal", "print_report"]

_LEGEND = """\
bias, var: bias and variance over redraws, relative to the length and the squared length of the exact gradient.
error: mean over prior and generator of bias² + var; no update has 1. cos: one real training step against the exact
gradient, in the parameters. ESS: effective sample size. fwd, bwd: candidates scored per query, in all and with gradient
(equal prompts are run once). s: seconds of the step. A dash: this part gets no gradient, or (*) from prompts of several
passages; the error is then that of the one step, in the parameters. The posterior's reference is KL(p(z|x,y) || q).\
"""
_OTHER_GOALS = """\
†: maximises something else than log p(y|x), so that its distance from this gradient is no mistake. Where that can be
enumerated, the line below has bias and variance against the exact gradient of it:\
"""


def print_report(report: LabReport, console: Console) -> None:
    """Print the table, its legend and the advice."""
    console.print(
        f"{report.name}: {report.queries} training queries, {report.base_size} passages, {report.redraws} redraws.\n"
        f"Reference: {report.reference}.\nPosterior retriever: {report.posterior}.",
        highlight=False,
        markup=False,
    )
    console.print(_table(report.findings))
    console.print("\n".join([_LEGEND, *_describe_goals(report.findings)]), highlight=False, markup=False)
    console.print(f"\n{format_advice(report)}", highlight=False, markup=False)


def _table(findings: list[EstimatorResult]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("estimator", no_wrap=True)
    for part in ("prior", "posterior", "generator"):
        for line in (f"{part}\nbias", "\nvar", "\ncos"):
            table.add_column(line, justify="right")
    for heading in ("\nerror", "\nESS", "\nfwd", "\nbwd", "\ns", "error\nx s"):
        table.add_column(heading, justify="right")
    for finding in sorted(findings, key=lambda finding: finding.error):
        table.add_row(Text(mark_goal(finding.measured)), *_cells(finding))
        own = finding.measured.own
        if own:
            parts = [own.get(part) for part in finding.measured.parts]
            cells = [cell for component in parts for cell in (*_format_component(component), "")]
            table.add_row("  against its own goal", *cells)
    return table


def mark_goal(measured: Measurement) -> str:
    """Return the name of an estimator, with a dagger where it maximises something else than log p(y|x)."""
    return measured.name if measured.goal == Goal.MARGINAL else f"{measured.name} †"


def _describe_goals(findings: list[EstimatorResult]) -> list[str]:
    """Return what the dagger means and the goals that were enumerated; nothing where all maximise the marginal."""
    if all(finding.measured.goal == Goal.MARGINAL for finding in findings):
        return []
    names: dict[Goal, list[str]] = {}
    for finding in findings:
        if finding.measured.own:
            names.setdefault(finding.measured.goal, []).append(finding.measured.name)
    return [_OTHER_GOALS, *(f"  {'; '.join(same)}: {goal}" for goal, same in names.items())]


def _cells(finding: EstimatorResult) -> list[str]:
    measured = finding.measured
    cells = [
        cell
        for part, component in measured.parts.items()
        for cell in (*_format_component(component), _format_number(finding.cosine[part]))
    ]
    mark = "" if finding.joint_prompt_error is None else "*"
    counts = [
        measured.diagnostics.get(name)
        for name in ("effective_sample_size", "generator_forwards", "generator_backwards")
    ]
    return [
        *cells,
        _format_number(finding.error) + mark,
        *("-" if value is None else f"{value:.1f}" for value in counts),
        f"{finding.seconds:.1f}",
        _format_number(finding.error * finding.seconds),
    ]


def _format_component(component: Component | None) -> tuple[str, str]:
    if component is None:
        return "-", "-"
    return _format_number(component.relative_bias), _format_number(component.relative_variance)


def _format_number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:.0e}"


def find_pareto_front(findings: list[EstimatorResult]) -> list[EstimatorResult]:
    """Return the Pareto front, cheapest first: nothing else is both cheaper and closer to the exact gradient."""
    best: list[EstimatorResult] = []
    for finding in sorted(findings, key=lambda finding: (finding.seconds, finding.error)):
        if not best or finding.error < best[-1].error:
            best.append(finding)
    return best


def format_advice(report: LabReport) -> str:
    """Return advice on which estimator to use: the closest, and a cheaper one that is nearly as close."""
    trainable = [
        finding
        for finding in report.findings
        if finding.measured.prior is not None and finding.generator_error is not None
    ]
    if not trainable:
        return "Advice: none of these trains retriever and generator both; measure some that do."
    best = min(trainable, key=lambda finding: finding.error)
    if best.error >= 1.0:
        return (
            f"Advice: none of these is closer to the exact gradient than no update (best: {best.measured.name}, error "
            f"{best.error:.2f}); the generator tells too little about the passages yet: train it, or warm up, first."
        )
    close = [finding for finding in trainable if finding.error <= 1.25 * best.error + 0.01]
    cheapest = min(close, key=lambda finding: finding.seconds)
    if cheapest is best:
        sentence = (
            f"Advice: use {best.measured.name}; its gradient is the closest to the exact one (error {best.error:.3f}), "
            f"and nothing nearly as close is cheaper ({best.seconds:.1f} s a batch)"
        )
    else:
        sentence = (
            f"Advice: use {cheapest.measured.name} (error {cheapest.error:.3f}, {cheapest.seconds:.1f} s a batch); "
            f"{best.measured.name} is closest ({best.error:.3f}) but takes {best.seconds / cheapest.seconds:.1f} times "
            f"as long"
        )
    return f"{sentence}{_alignment_remark(trainable, cheapest)}."


def _alignment_remark(trainable: list[EstimatorResult], advised: EstimatorResult) -> str:
    """Return a remark on the estimator whose step is best aligned with the exact gradient, if it is not the advised
    one.

    Noise on single passages averages out in the parameters, a bias does not: the two rankings may differ.
    """
    best = max(trainable, key=_alignment)
    if best is advised or _alignment(best) <= _alignment(advised) + 0.05:
        return ""
    return (
        f"; in the parameters a step of {best.measured.name} points best (mean cosine {_alignment(best):.2f} against "
        f"{_alignment(advised):.2f}, {best.seconds:.1f} s)"
    )


def _alignment(finding: EstimatorResult) -> float:
    """Return the mean cosine of the prior's and the generator's step with the exact gradient; 0 for none."""
    return sum(finding.cosine[part] or 0.0 for part in ("prior", "generator")) / 2


def draw(report: LabReport, path: Path) -> None:
    """Draw error against seconds, one point per estimator, the Pareto front as a line.

    The suffix decides the format.
    """
    figure = make_figure(9.0, 6.0)
    axes = figure.add_subplot()
    best = find_pareto_front(report.findings)
    axes.plot(
        [finding.seconds for finding in best],
        [finding.error for finding in best],
        color="tab:green",
        zorder=1,
        label="Pareto front",
    )
    for finding in report.findings:
        on_front = finding in best
        axes.scatter(finding.seconds, finding.error, color="tab:green" if on_front else "tab:grey", zorder=2)
        axes.annotate(
            escape_formulas(finding.measured.name),
            (finding.seconds, finding.error),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7,
            color="black" if on_front else "dimgrey",
        )
    axes.axhline(1.0, color="lightgrey", linewidth=1, zorder=0)
    axes.set(
        xscale="log",
        yscale="log",
        xlabel=f"seconds for one batch of {report.queries} queries",
        ylabel="relative squared error of the gradient (prior and generator)",
        title=f"{escape_formulas(report.name)}: gradient estimators at fixed parameters",
    )
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("{x:g}")
    axes.tick_params(which="minor", labelsize=6)
    axes.margins(x=0.12)
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
