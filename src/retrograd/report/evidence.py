"""The evidence of a study as text: a table of its systems, notes, and one sentence."""

from __future__ import annotations

import io

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.evidence import Difference, format_spread, metric_name
from retrograd.experiments.controls import ORACLE
from retrograd.studies.study import EXPERIMENT
from retrograd.studies.verdict import SECONDARY_METRICS, Verdict
from retrograd.util.files import atomic_file

__all__ = ["format_evidence", "save_evidence"]


def save_evidence(verdict: Verdict) -> str:
    """Write ``evidence.txt`` into the folder of the study, and return its text."""
    text = format_evidence(verdict)
    with atomic_file(verdict.study.path / "evidence.txt") as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return text


def format_evidence(verdict: Verdict) -> str:
    """Return the table of systems, notes on how to read its numbers, and the sentence."""
    file = io.StringIO()
    console = Console(file=file, width=140)
    console.print(_table(verdict))
    for line in [*verdict.notes, f"\n{verdict.evidence.sentence}"]:
        console.print(line, highlight=False, markup=False)
    return file.getvalue().rstrip()


def _table(verdict: Verdict) -> Table:
    study, evidence, scores = verdict.study, verdict.evidence, verdict.scores
    secondary = [
        name
        for name in SECONDARY_METRICS
        if name != evidence.metric and any(name in by_metric for by_metric in scores.values())
    ]
    table = Table(
        title=Text(f"{study.systems[EXPERIMENT].name}, seeds {', '.join(map(str, study.seeds))}"), title_justify="left"
    )
    table.add_column("system")
    for heading in (*map(metric_name, (evidence.metric, *secondary)), "experiment less it", "95 % interval", "p"):
        table.add_column(Text(heading), justify="right")
    differences = {difference.control: difference for difference in evidence.differences}
    for name, by_metric in scores.items():
        title = {EXPERIMENT: study.systems[EXPERIMENT].name, ORACLE: "oracle (is told)"}.get(name, name)
        values = (format_spread(by_metric.get(metric, [])) for metric in (evidence.metric, *secondary))
        table.add_row(Text(title), *values, *_cells(differences.get(name)))
    return table


def _cells(difference: Difference | None) -> tuple[str, ...]:
    if difference is None:
        return ("", "", "")
    interval = f"{difference.interval.low:+.1f} to {difference.interval.high:+.1f}"
    return format_spread(difference.by_seed, "+"), interval, f"{difference.test.p_value:.2g}"
