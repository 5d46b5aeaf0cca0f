"""Progress on long work: bars with rate and time left on a terminal, lines for people, and the log.

Every line goes to ``logging.getLogger("retrograd")``, at level INFO. Lines and bars on stderr are shown once
`show_progress` has asked for them, as the command line does: a library is silent.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # rich is imported when something is shown
    from rich.console import Console
    from rich.progress import ProgressColumn

__all__ = ["bar", "say", "show_log", "show_progress", "silence_output"]

Advance = Callable[[int], None]


@contextmanager
def bar(description: str, total: int, unit: str) -> Iterator[Advance]:
    """Show a bar of ``total`` units; call what it yields with the number of units newly done."""
    if not (_SHOWN[-1] and _console().is_terminal):
        yield lambda count: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        _rate(unit),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console(), transient=True) as progress:
        task = progress.add_task(description, total=total)
        yield lambda count: progress.advance(task, count)


def _rate(unit: str) -> ProgressColumn:
    """Return a column with the recent rate in items per second."""
    from rich.progress import ProgressColumn, Task
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            return Text("" if task.speed is None else f"{task.speed:.3g} {unit}/s")

    return Rate()


def show_progress(is_shown: bool = True) -> None:
    """Show bars and lines on stderr from now on, or no more.

    Example::

        rg.show_progress()
        rg.show_progress(False)
    """
    _SHOWN[:] = [is_shown]


def say(line: str) -> None:
    """Log one plain line; where progress is shown, print it above a running bar as well."""
    logging.getLogger("retrograd").info(line, extra={_IS_SHOWN: _SHOWN[-1]})
    if _SHOWN[-1]:
        _console().print(line, highlight=False, markup=False, soft_wrap=True)


def silence_output() -> None:
    """Silence bars and lines of this process, because another process reports for it."""
    from rich.console import Console

    _CONSOLE[:] = [Console(stderr=True, quiet=True)]


def show_log(is_shown: bool = True) -> None:
    """Print the log of the package on stderr, at level DEBUG, from now on, or no more; lines that are shown as progress
    are not printed again.
    """
    logger = logging.getLogger("retrograd")
    for handler in _LOG:
        logger.removeHandler(handler)
    _LOG.clear()
    logger.setLevel(logging.DEBUG if is_shown else logging.NOTSET)
    if is_shown:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        handler.addFilter(lambda record: not vars(record).get(_IS_SHOWN, False))
        logger.addHandler(handler)
        _LOG.append(handler)


_IS_SHOWN = "is_shown"
_LOG: list[logging.Handler] = []
_CONSOLE: list[Console] = []
_SHOWN = [False]


def _console() -> Console:
    # One console, so that lines and bars do not overwrite each other; created at first use, when stderr is set up.
    if not _CONSOLE:
        from rich.console import Console

        _CONSOLE.append(Console(stderr=True))
    return _CONSOLE[0]
