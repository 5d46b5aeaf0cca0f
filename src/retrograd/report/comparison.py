"""Presentation of a comparison of two runs on the terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.open_comparison import OpenComparison
from retrograd.metrics.significance import is_beyond_chance
from retrograd.studies.compare import Comparison

__all__ = ["print_comparison"]


def print_comparison(comparison: Comparison | OpenComparison, names: tuple[str, str], console: Console) -> None:
    """Print the verdict, which system is right where, and the relations, if there are any."""
    baseline, system = comparison.scores
    interval = comparison.interval
    is_beyond = is_beyond_chance(interval, comparison.test)
    verdict = "more than the choice of test items explains" if is_beyond else "may be chance"
    console.print(
        f"{comparison.metric}: {names[0]} {baseline:.1f}, {names[1]} {system:.1f}\n"
        f"difference {interval.difference:+.1f}, {100 * interval.confidence:g} % interval [{interval.low:+.1f}, "
        f"{interval.high:+.1f}] (paired bootstrap), p = {comparison.test.p_value:.2g} (paired permutation), "
        f"{interval.items:,} items: {verdict}\n"
        "Other seeds of training are another source of chance, which a test of items cannot measure.\n"
        f"{_agreement(comparison, names)}",
        highlight=False,
        markup=False,
    )
    if isinstance(comparison, OpenComparison):
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("relation", no_wrap=True)
    for heading in ("items", f"F1 {names[0]}", f"F1 {names[1]}", "gain"):
        table.add_column(Text(heading), justify="right")
    for row in comparison.relations:
        gain = row.system - row.baseline
        table.add_row(Text(row.relation), str(row.items), f"{row.baseline:.1f}", f"{row.system:.1f}", f"{gain:+.1f}")
    console.print(table)


def _agreement(comparison: Comparison | OpenComparison, names: tuple[str, str]) -> str:
    counts = comparison.agreement
    if isinstance(comparison, Comparison):
        return (
            f"right: both {counts['both']}, {names[0]} alone {counts['baseline alone']}, "
            f"{names[1]} alone {counts['system alone']}, none {counts['none']}"
        )
    return f"{names[1]} by item: " + ", ".join(f"{name} {count}" for name, count in counts.items()) if counts else ""
