"""GitHub Markdown that is readable as plain text: tables with aligned columns, and names that cannot break them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["escaped", "table"]

_SPECIAL = re.compile(r"[\\`*|<\[\]~]|&(?=#?\w+;)|(?<![^\W_])_|_(?![^\W_])")


def escaped(text: str) -> str:
    """A name as it is, whatever signs it holds, on one line; an underscore inside a word needs no escape."""
    return _SPECIAL.sub(lambda match: "\\" + match[0], " ".join(text.split()))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """The lines of a table whose cells are escaped already; all but the ``left`` first columns are aligned right."""
    widths = [max(3, *(len(row[column]) for row in [headings, *rows])) for column in range(len(headings))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if column < left else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
    return [line(headings), line(rule), *(line(row) for row in rows)]
