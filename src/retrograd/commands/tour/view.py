"""The picture of the tour: it changes in place on a terminal, and is printed line by line elsewhere."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, runtime_checkable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

__all__ = ["LinesView", "LiveView", "Look", "Neighbour", "QueryView", "View", "make_view"]

_LEVELS = "▁▂▃▄▅▆▇█"
_SENTENCE = 88
_SNIPPET = 58


@dataclass(frozen=True)
class Neighbour:
    """A retrieved sentence, its relation, and whether that is the right one."""

    relation: str
    text: str
    is_right: bool

    @property
    def mark(self) -> str:
        """Return + for the right relation, - for another."""
        return "+" if self.is_right else "-"


@dataclass(frozen=True)
class QueryView:
    """A query with its right relation and what is retrieved for it now, best first."""

    text: str
    relation: str
    neighbours: Sequence[Neighbour]


@dataclass(frozen=True)
class Look:
    """What is retrieved at one time: for each query, and the share of held-out sentences whose nearest is right."""

    right_share: float
    queries: Sequence[QueryView]


@runtime_checkable
class View(Protocol):
    """A place where the tour is shown: once before training, after some of its steps, and at its end."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def show_start(self, look: Look) -> None:
        """Show what the untrained retriever finds."""
        ...

    def show_step(self, step: int, steps: int, look: Look) -> None:
        """Show what is found after ``step`` of ``steps``."""
        ...

    def show_end(self, look: Look) -> None:
        """Show what the trained retriever finds, its passages embedded by itself."""
        ...


def make_view(console: Console, held_out: int) -> View:
    """Return the view for a console: a live one on a terminal, else lines. ``held_out`` sentences are counted."""
    return LiveView(console, held_out) if console.is_terminal else LinesView(console, held_out)


@dataclass
class LinesView:
    """Prints each query with its neighbours at the beginning and at the end, and one line for each look between."""

    console: Console
    held_out: int

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def show_start(self, look: Look) -> None:
        """Print the queries, then the share."""
        self._print_queries("Before training", look.queries)
        share = f"{look.right_share:.0%} of {self.held_out} new sentences"
        self.console.print(f"\nBefore training the nearest neighbour is right for {share}.", highlight=False)

    def show_step(self, step: int, steps: int, look: Look) -> None:
        """Print one line."""
        marks = "  ".join("".join(one.mark for one in query.neighbours) for query in look.queries)
        line = f"step {step:3d} of {steps}: right for {look.right_share:.0%}; of the queries above: {marks}"
        self.console.print(line, highlight=False)

    def show_end(self, look: Look) -> None:
        """Print the queries."""
        self.console.print("")
        self._print_queries("After training", look.queries)

    def _print_queries(self, when: str, queries: Sequence[QueryView]) -> None:
        self.console.print(f"{when}, nearest first (+ right relation, - wrong):", highlight=False)
        for query in queries:
            self.console.print(f"\n  {_shorten(query.text, 110)}  ({query.relation})", highlight=False, markup=False)
            for one in query.neighbours:
                line = f"    {one.mark} [{one.relation}] {_shorten(one.text, 80)}"
                self.console.print(line, highlight=False, markup=False)


@dataclass
class LiveView:
    """Shows all queries at once, each with its nearest sentence before training and now, and redraws them in place."""

    console: Console
    held_out: int
    shares: list[float] = field(default_factory=list)
    before: list[QueryView] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._live = Live(Text("…"), console=self.console, auto_refresh=False)

    def __enter__(self) -> View:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def show_start(self, look: Look) -> None:
        """Draw everything for the first time."""
        self.before = list(look.queries)
        self._draw("before training", 0.0, look)

    def show_step(self, step: int, steps: int, look: Look) -> None:
        """Redraw everything."""
        self._draw(f"step {step} of {steps}", step / steps, look)

    def show_end(self, look: Look) -> None:
        """Redraw everything for the last time; it stays."""
        self._draw("after training", 1.0, look)

    def _draw(self, when: str, done: float, look: Look) -> None:
        self.shares.append(look.right_share)
        self._live.update(Group(self._heading(when, done), self._table(look.queries)), refresh=True)

    def _heading(self, when: str, done: float) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        curve = "".join(_LEVELS[min(int(one * len(_LEVELS)), len(_LEVELS) - 1)] for one in self.shares)
        share = (f"{self.shares[-1]:.0%}", "bold green")
        words = Text.assemble("nearest neighbour right: ", share, f" of {self.held_out} new sentences")
        grid.add_row(when, ProgressBar(total=1.0, completed=done, width=24), words, Text(curve, style="green"))
        return grid

    def _table(self, queries: Sequence[QueryView]) -> Table:
        table = Table(box=None, pad_edge=False, show_header=False)
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True, overflow="ellipsis")
        for query, first in zip(queries, self.before, strict=True):
            table.add_row("", "")
            table.add_row("", Text.assemble((_shorten(query.text, _SENTENCE), "bold"), f"  {query.relation}"))
            table.add_row("before", _line(first))
            table.add_row("now", _line(query))
        return table


def _line(query: QueryView) -> Text:
    """Return the marks of all neighbours, then the first one with its relation."""
    line = Text()
    for one in query.neighbours:
        line.append("✓" if one.is_right else "✗", "bold green" if one.is_right else "red")
    best = query.neighbours[0]
    line.append(f"  {best.relation}", "green" if best.is_right else "red")
    line.append(f"  {_shorten(best.text, _SNIPPET)}", "dim")
    return line


def _shorten(text: str, width: int) -> str:
    """Return one line of at most ``width`` characters, cut around the marked nouns where there are any."""
    text = " ".join(text.split())
    if len(text) <= width:
        return text
    marks = [match.start() for match in re.finditer("</?e[12]>", text)]
    start = max(0, min(marks[0] - 12, len(text) - width + 1)) if marks else 0
    cut = text[start : start + width - 2]
    return ("…" if start else "") + cut + ("…" if start + width - 2 < len(text) else "")
