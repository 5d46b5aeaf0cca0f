"""Markdown that is readable as plain text: names on one line, tables with aligned columns."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["code_span", "escape", "table_lines"]

_SPECIAL = re.compile(r"[\\`*|<\[\]~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def escape(text: str) -> str:
    """Return a name on one line with its special characters escaped; an underscore inside a word needs no escape."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], " ".join(text.split()))


def code_span(text: str) -> str:
    """Return a text on one line as code, between more backticks than stand in it together."""
    line = " ".join(text.split())
    fence = "`" * (1 + max((len(ticks) for ticks in re.findall("`+", line)), default=0))
    return f"{fence} {line} {fence}" if "`" in line else f"{fence}{line}{fence}"


def table_lines(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return the lines of a table of escaped cells; all but the first ``left`` columns are aligned right."""
    widths = [max(3, *(len(row[column]) for row in [headings, *rows])) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(headings), line(rule), *(line(row) for row in rows)]
