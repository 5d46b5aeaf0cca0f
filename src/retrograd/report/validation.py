"""What `retrograd validate` found, for people: the parts, how long their texts are, and the findings."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from retrograd.experiments.data.findings import Finding, Findings
from retrograd.studies.lengths import Lengths
from retrograd.studies.validation.validate import Validation

__all__ = ["print_validation"]

_BAR = 24
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def print_validation(found: Validation, console: Console) -> None:
    """Three tables, one bar chart for each kind of text in each part, the findings, and a verdict."""
    console.print(_parts(found))
    for lengths in found.lengths:
        console.print()
        _say(console, _heading(lengths))
        for low, high, count in lengths.bins:
            label = f"{low}-{high}"
            _say(console, f"  {label:>11} {bar(count / lengths.sampled)} {count:,}".rstrip())
    for note in found.notes:
        _say(console, f"\nnote: {note}")
    console.print()
    for finding in found.findings.ordered():
        _say(console, _line(finding))
    for severity, check, part, count in found.findings.hidden():
        _say(console, f"{severity:<8} {check}, {part}: {count:,} more")
    _say(console, _verdict(found.findings))


def bar(share: float, width: int = _BAR) -> str:
    """A bar of block elements, ``width`` signs for 1; anything above 0 shows."""
    eighths = max(round(share * width * 8), 1 if share > 0 else 0)
    whole, rest = divmod(eighths, 8)
    return (_EIGHTHS[8] * whole + _EIGHTHS[rest] * (rest > 0)).ljust(width)


def _parts(found: Validation) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("part", no_wrap=True)
    labelled = any(part.labels for part in found.parts)
    for heading in ("records", *["labels"] * labelled, "errors", "warnings"):
        table.add_column(heading, justify="right")
    table.add_column("from", overflow="fold")
    for part in found.parts:
        counts = [
            sum(n for (severity, _, name), n in found.findings.counts.items() if (severity, name) == (one, part.name))
            for one in ("error", "warning")
        ]
        labels = [f"{part.labels:,}" if part.labels else ""] * labelled
        source = part.source.replace("[", r"\[")
        table.add_row(part.name.replace("[", r"\["), f"{part.records:,}", *labels, *map(str, counts), source)
    return table


def _heading(one: Lengths) -> str:
    sample = "" if one.sampled == one.texts else f" ({one.sampled:,} of {one.texts:,} sampled)"
    limit = "no limit known" if one.limit is None else f"{one.cut:.1%} above the limit of {one.limit}"
    return (
        f"{one.part}: {one.what}, {one.unit}{sample}: mean {one.mean:.1f}, median {one.median}, longest {one.longest}; "
        f"{limit}"
    )


def _line(finding: Finding) -> str:
    return f"{finding.severity:<8} {finding.check}: {finding.place}: {finding.what}; {finding.remedy}"


def _verdict(findings: Findings) -> str:
    errors, warnings = findings.total("error"), findings.total("warning")
    also = f"{warnings:,} warning{'' if warnings == 1 else 's'}"
    if errors:
        return f"{errors:,} error{'' if errors == 1 else 's'}, {also}: a run would break, or its scores would not count"
    return f"no errors, {also}" if warnings else "nothing found"


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)
