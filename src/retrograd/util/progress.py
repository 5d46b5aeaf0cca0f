"""Progress bars of long work, with rate and time left, on a terminal only. All output goes to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

__all__ = ["bar", "hush", "say"]

Advance = Callable[[int], None]


class _Rate(ProgressColumn):
    """Column with the recent rate in items per second."""

    def __init__(self, unit: str) -> None:
        super().__init__()
        self._unit = unit

    def render(self, task: Task) -> Text:
        return Text("" if task.speed is None else f"{task.speed:.3g} {self._unit}/s")


@contextmanager
def bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar of ``total`` units; call what it yields with the number of units newly done."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(unit), TimeRemainingColumn())
    console = _console()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def say(line: str) -> None:
    """Print one plain line to stderr, above a running bar."""
    _console().print(line, highlight=False, markup=False, soft_wrap=True)


def hush() -> None:
    """Silence bars and lines of this process, because another process reports for it."""
    _CONSOLE[:] = [Console(stderr=True, quiet=True)]


_CONSOLE: list[Console] = []


def _console() -> Console:
    # One console, so that lines and bars do not overwrite each other; created at first use, when stderr is set up.
    if not _CONSOLE:
        _CONSOLE.append(Console(stderr=True))
    return _CONSOLE[0]
