"""Presentation of `retrograd validate`: the parts, the lengths of their texts, and the findings."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from retrograd.experiments.data.findings import Finding, Findings
from retrograd.experiments.data.recognition import FileReading
from retrograd.studies.lengths import Lengths
from retrograd.studies.validation.validate import Validation

__all__ = ["print_validation"]

_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_validation(validation: Validation, console: Console) -> None:
    """Print the parts, a bar chart for each kind of text in each part, the findings, and a verdict."""
    console.print(_parts(validation))
    for reading in validation.readings:
        _print_reading(console, reading)
    for lengths in validation.lengths:
        console.print()
        _print_line(console, _heading(lengths))
        for low, high, count in lengths.bins:
            label = f"{low}-{high}"
            _print_line(console, f"  {label:>11} {bar(count / lengths.sampled)} {count:,}".rstrip())
    for note in validation.notes:
        _print_line(console, f"\nnote: {note}")
    console.print()
    for finding, count in validation.findings.grouped():
        _print_line(console, _line(finding, count))
    for severity, check, part, count in validation.findings.unnamed():
        _print_line(console, f"{severity:<8} {check}, {part}: {count:,} more")
    _print_line(console, _verdict(validation.findings))


def _print_reading(console: Console, reading: FileReading) -> None:
    """Print what a file is taken for, and its first record."""
    how = f"{reading.kind}, format {reading.format}" if reading.format != "auto" else reading.kind
    _print_line(console, f"\n{reading.source}: {how}")
    for name, text in reading.first:
        _print_line(console, f"  {name}: {' '.join(text.split())}")
    if reading.first:
        fields = "base_fields" if reading.kind == "corpus" else "fields"
        _print_line(console, f"  not so? say --kind, --format, or where the fields are: --set data.{fields}.NAME=PATH")


def bar(share: float, width: int = _BAR) -> str:
    """Return a bar of block elements, ``width`` characters for 1; anything above 0 is visible."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * whole + _EIGHTHS[rest] * (rest > 0)).ljust(width)


def _parts(validation: Validation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    labelled = any(part.labels for part in validation.parts)
    for heading in ("records", *["labels"] * labelled, "errors", "warnings"):
        table.add_column(heading, justify="right")
    table.add_column("from", overflow="fold")
    for part in validation.parts:
        counts = [
            sum(
                n
                for (severity, _, name), n in validation.findings.counts.items()
                if (severity, name) == (one, part.name)
            )
            for one in ("error", "warning")
        ]
        labels = [f"{part.labels:,}" if part.labels else ""] * labelled
        source = Text(part.source)
        table.add_row(Text(part.name), f"{part.records:,}", *labels, *map(str, counts), source)
    return table


def _heading(lengths: Lengths) -> str:
    sample = "" if lengths.sampled == lengths.texts else f" ({lengths.sampled:,} of {lengths.texts:,} sampled)"
    limit = "no limit known" if lengths.limit is None else f"{lengths.cut:.1%} above the limit of {lengths.limit}"
    return (
        f"{lengths.part}: {lengths.what}, {lengths.unit}{sample}: mean {lengths.mean:.1f}, median {lengths.median}, "
        f"longest {lengths.longest}; {limit}"
    )


def _line(finding: Finding, count: int) -> str:
    place = finding.place if count == 1 else f"{finding.place} and {count - 1:,} more"
    return f"{finding.severity:<8} {finding.check}: {place}: {finding.what}; {finding.remedy}"


def _verdict(findings: Findings) -> str:
    errors, warnings = findings.total("error"), findings.total("warning")
    also = f"{warnings:,} warning{'' if warnings == 1 else 's'}"
    if errors:
        return f"{errors:,} error{'' if errors == 1 else 's'}, {also}: a run would break, or its scores would not count"
    return f"no errors, {also}" if warnings else "nothing found"


def _print_line(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
