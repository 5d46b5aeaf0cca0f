"""Presentation of what a run retrieves: tables, each with an explanation, examples of single queries, and pictures."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.evaluation.concentration import Distribution
from retrograd.evaluation.neighbours import Agreement
from retrograd.report.figures import escape_formulas, make_figure
from retrograd.studies.analyse import AnalysisReport, AtK, QueryStory

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["draw_analysis", "print_analysis", "save_text"]

_MOST_NEIGHBOURS = 5
_WIDTH = 110


def print_analysis(report: AnalysisReport, console: Console) -> None:
    """Print all tables and examples."""
    _print_line(
        console,
        f"{report.name}: {report.queries} queries of the {report.split} data, each with the k best of "
        f"{report.base_size} training instances.",
    )
    for note in report.notes:
        _print_line(console, f"Note: {note}")
    for at_k in report.at:
        is_explained = at_k is report.at[0]
        _print_agreement(at_k, console, is_explained)
        _print_weights(at_k, report, console, is_explained)
        _print_usage(at_k, console, is_explained)
    _print_slots(report, console)
    _print_stories(f"Surest of their own label (k = {report.at[0].k})", report.best, console)
    _print_stories(f"Least weight on their own label (k = {report.at[0].k})", report.worst, console)


def save_text(report: AnalysisReport, path: Path) -> None:
    """Write what `print_analysis` prints to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        print_analysis(report, Console(file=file, width=_WIDTH))


def _print_line(console: Console, text: str) -> None:
    console.print(text, highlight=False, markup=False)


def _print_title(console: Console, text: str, is_explained: bool = True) -> None:
    """Print a table's title. Under the first k an explanation follows the table; later tables refer to it."""
    _print_line(console, f"\n{text}{'' if is_explained else ' (read as above)'}")


# ---- what is shared -----------------------------------------------------------------------------------------------


def _print_agreement(at_k: AtK, console: Console, is_explained: bool) -> None:
    title = f"k = {at_k.k}: what retrieved instances share with the query, against blind draws from the base"
    _print_title(console, title, is_explained)
    console.print(_agreement_table(at_k.base, at_k.k))
    if is_explained:
        _print_line(
            console,
            "weight: mean weight, p(z|x) renormalised over the k, on instances that share it; share: their share of "
            "the k; any: share of queries with at least one among the k. random: the exact expectation for k instances "
            "drawn blindly from all that the query may retrieve. lift: found / random; 1 is no better than chance. "
            "none: queries for which no instance shares it. positive: queries whose label is not the negative one.",
        )
    if not any(at_k.types.values()):
        return
    _print_title(
        console, f"k = {at_k.k}: the same, against blind draws from the query's pair of entity types", is_explained
    )
    console.print(_agreement_table(at_k.types, at_k.k))
    if is_explained:
        _print_line(
            console,
            "Here random draws k instances (all, where there are fewer) of the same head and tail types as the query, "
            "so a lift above 1 is more than knowing the types; only queries whose pair occurs in the base are counted.",
        )


def _agreement_table(groups: dict[str, list[Agreement]], k: int) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("queries", no_wrap=True)
    table.add_column("what is shared", no_wrap=True)
    headings = ("weight", "lift", "share", "lift", "random", f"any of {k}", "random", "lift", "none")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, lines in groups.items():
        for number, line in enumerate(lines):
            table.add_row(Text(f"{name} ({line.queries})" if number == 0 else ""), Text(line.trait), *_cells(line))
    return table


def _cells(line: Agreement) -> list[str]:
    return [
        f"{line.weight:.1%}",
        _format_lift(line.weight_lift),
        f"{line.share:.1%}",
        _format_lift(line.share_lift),
        f"{line.random_share:.1%}",
        f"{line.any_of_k:.1%}",
        f"{line.random_any_of_k:.1%}",
        _format_lift(line.any_lift),
        str(line.without),
    ]


def _format_lift(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


# ---- concentration ------------------------------------------------------------------------------------------------


def _print_weights(at_k: AtK, report: AnalysisReport, console: Console, is_explained: bool) -> None:
    _print_title(console, f"k = {at_k.k}: how weight is spread over the instances of a query", is_explained)
    table = Table(box=None, pad_edge=False)
    table.add_column("", no_wrap=True)
    for heading in ("mean", "5 %", "25 %", "median", "75 %", "95 %"):
        table.add_column(heading, justify="right")
    rows = {
        f"effective neighbours of the {at_k.k}, 1 / sum of w²": at_k.effective,
        f"effective neighbours of the {at_k.k}, exp(entropy)": at_k.perplexity,
        f"weight of the best of the {at_k.k}": at_k.top,
        f"p(z|x) that the {at_k.k} hold together": at_k.mass,
        "entropy of p(z|x) over the base, nats": report.entropy,
    }
    for name, values in rows.items():
        distribution = Distribution.of(values)
        cuts = (
            distribution.mean,
            distribution.p5,
            distribution.p25,
            distribution.median,
            distribution.p75,
            distribution.p95,
        )
        table.add_row(name, *(f"{value:.3g}" for value in cuts))
    console.print(table)
    if is_explained:
        _print_line(
            console,
            f"One number per query, as mean and percentiles: {at_k.k} effective neighbours mean equal weights, 1 means "
            f"that one instance has it all. Were p(z|x) equal for all, its entropy would be log {report.base_size} = "
            f"{np.log(report.base_size):.3g} nats.",
        )


def _print_usage(at_k: AtK, console: Console, is_explained: bool) -> None:
    usage = at_k.usage
    _print_title(console, f"k = {at_k.k}: how often each training instance is retrieved", is_explained)
    table = Table(box=None, pad_edge=False)
    for heading in ("never", "never, random", "effective instances", "Gini", "top-10 share"):
        table.add_column(heading, justify="right")
    table.add_row(
        f"{usage.never_share:.1%}",
        f"{usage.random_never_share:.1%}",
        f"{usage.effective:.1f} of {len(usage.counts)}",
        f"{usage.gini:.2f}",
        f"{usage.top10_share:.1%}",
    )
    console.print(table)
    if is_explained:
        _print_line(
            console,
            "never: share of the base that no query retrieves, and what blind draws would leave; effective instances: "
            "exp of the entropy of retrievals over instances; Gini: 0 if all are retrieved equally often, near 1 if "
            "few always are; top-10 share: of all retrievals, by the ten most retrieved.",
        )
    _print_line(console, f"The most retrieved (hubs): times among the {at_k.k} best, label, instance")
    for hub in at_k.hubs:
        line = Text(f"{hub.times:6d}  [{hub.label}] {hub.text}")
        console.print(line, highlight=False, no_wrap=True, overflow="ellipsis")


def _print_slots(report: AnalysisReport, console: Console) -> None:
    slots = report.slots
    if slots is None:
        return
    _print_title(console, f"Soft slots: {slots.count} weight rows over {slots.candidates} candidates")
    _print_line(
        console,
        f"mean cosine between two slots {slots.similarity:.3f}   L1 distance to the hard set "
        f"{slots.hard_distance:.2f} of at most {2 * slots.count}   largest summed weight {slots.largest_sum:.2f}",
    )
    _print_line(
        console,
        f"Cosine 1: all slots hold the same mixture, 0: different instances. L1: how far the summed weights are from "
        f"choosing the {slots.count} best once each. A summed weight above 1: an instance was chosen more than once.",
    )


# ---- stories ------------------------------------------------------------------------------------------------------


def _print_stories(title: str, stories: list[QueryStory], console: Console) -> None:
    _print_title(console, title)
    if not stories:
        _print_line(console, "No such query: too few have a label that occurs in the base.")
        return
    _print_line(
        console,
        f"A query with its label, then its neighbours, at most {_MOST_NEIGHBOURS}: weight, = for the query's label, "
        f"e for a shared entity.",
    )
    for story in stories:
        _print_line(console, f"\n[{story.label}] {story.text}   ({story.id}; {story.weight:.1%} on its own label)")
        table = Table.grid(padding=(0, 1))
        table.add_column(justify="right", min_width=8)
        table.add_column(min_width=2)
        table.add_column()
        for neighbour in story.neighbours[:_MOST_NEIGHBOURS]:
            marks = ("=" if neighbour.same_label else " ") + ("e" if neighbour.shared_entity else " ")
            table.add_row(f"{neighbour.weight:.1%}", marks, Text(f"[{neighbour.label}] {neighbour.text}"))
        console.print(table, highlight=False)


# ---- pictures -----------------------------------------------------------------------------------------------------


def draw_analysis(report: AnalysisReport, folder: Path) -> list[Path]:
    """Draw three pictures of the first k and return their paths: what is shared, how spread, how often."""
    folder.mkdir(parents=True, exist_ok=True)
    at_k = report.at[0]
    title = f"{escape_formulas(report.name)}, {report.split} data, k = {at_k.k}"
    return [
        _draw_agreement(at_k, title, folder / "shared.png"),
        _draw_weights(at_k, report, title, folder / "concentration.png"),
        _draw_usage(at_k, title, folder / "usage.png"),
    ]


def _draw_agreement(at_k: AtK, title: str, path: Path) -> Path:
    groups = {name: lines for name, lines in at_k.base.items() if lines}
    figure = make_figure(5.5 * len(groups), 4.8)
    for axes, (name, lines) in zip(np.ravel(figure.subplots(1, len(groups), sharey=True)), groups.items(), strict=True):
        _draw_bars(axes, lines, at_k.k)
        axes.set_title(f"{escape_formulas(name)} ({lines[0].queries} queries)", fontsize=9)
    figure.suptitle(f"{title}: what retrieved instances share with the query", fontsize=10)
    figure.savefig(path, dpi=150)
    return path


def _draw_bars(axes: Axes, lines: list[Agreement], k: int) -> None:
    """Draw three bars a trait, each with its random expectation as a black line."""
    measures = {
        "weight": [(line.weight, line.random_share) for line in lines],
        f"share of {k}": [(line.share, line.random_share) for line in lines],
        f"any of {k}": [(line.any_of_k, line.random_any_of_k) for line in lines],
    }
    positions = np.arange(len(lines))
    for number, (name, pairs) in enumerate(measures.items()):
        centre = positions + (number - 1) * 0.27
        axes.bar(centre, [value for value, _ in pairs], width=0.24, label=name)
        expected = [chance for _, chance in pairs]
        label = "blind draws (exact)" if number == 0 else "_nolegend_"
        axes.hlines(expected, centre - 0.12, centre + 0.12, color="black", linewidth=2, label=label)
    axes.set_xticks(positions, [line.trait.replace(", ", ",\n") for line in lines], fontsize=7)
    axes.set_ylim(0, 1)
    axes.legend(fontsize=7)


def _draw_weights(at_k: AtK, report: AnalysisReport, title: str, path: Path) -> Path:
    figure = make_figure(10.0, 3.8)
    left, right = figure.subplots(1, 2)
    left.hist(at_k.effective, bins=np.linspace(1, max(at_k.k, 2), 31), color="tab:blue")
    left.set(xlabel=f"effective neighbours of the {at_k.k}, 1 / sum of w²", ylabel="queries")
    right.hist(report.entropy, bins=30, range=(0, max(float(np.log(report.base_size)), 0.1)), color="tab:orange")
    right.set(xlabel="entropy of p(z|x) over the base, nats (right edge: blind)", ylabel="queries")
    figure.suptitle(f"{title}: how weight is spread", fontsize=10)
    figure.savefig(path, dpi=150)
    return path


def _draw_usage(at_k: AtK, title: str, path: Path) -> Path:
    ordered = np.sort(at_k.usage.counts)[::-1]
    share = np.concatenate([[0.0], ordered.cumsum() / ordered.sum()])
    figure = make_figure(5.5, 4.5)
    axes = figure.add_subplot()
    place = np.linspace(0, 1, len(share))
    axes.plot(place, share, label=f"Gini {at_k.usage.gini:.2f}")
    axes.plot([0, 1], [0, 1], color="lightgrey", label="all equally often")
    axes.set(
        xlabel="share of the training instances, most retrieved first",
        ylabel="share of all retrievals",
        xlim=(0, 1),
        ylim=(0, 1.02),
    )
    axes.set_title(f"{title}: how often each is retrieved", fontsize=10)
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=150)
    return path
