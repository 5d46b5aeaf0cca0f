"""Findings say what is wrong with data, each with its place and a remedy, and how many there are of a kind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Literal

from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.text_files import Refuse

__all__ = ["MOST_SHOWN", "Finding", "Findings", "Severity", "split_message"]

Severity = Literal["error", "warning"]

MOST_SHOWN = 20
"""Findings of one kind in one part that are kept; the others are counted."""

_PLACE = re.compile(r"(?:, (?P<place>[^:]*?\d[^:]*)|): ")


@dataclass(frozen=True)
class Finding:
    """One fault of the data, with its place and a remedy.

    An ``error`` breaks a run or lets test data leak into training; a ``warning`` is worth a look.
    ``check`` names what was looked at; ``place`` is ``file:line``, or a file and an id.
    """

    severity: Severity
    check: str
    part: str
    place: str
    what: str
    remedy: str


@dataclass
class Findings:
    """Collector of at most `MOST_SHOWN` findings of each check in each part, and of the numbers of all.

    ``alike`` counts those of one check in one part that say the same of different places.
    """

    shown: list[Finding] = field(default_factory=list)
    counts: Counter[tuple[Severity, str, str]] = field(default_factory=Counter)
    alike: Counter[tuple[Severity, str, str, str]] = field(default_factory=Counter)

    def add(self, finding: Finding) -> None:
        key = (finding.severity, finding.check, finding.part)
        self.counts[key] += 1
        self.alike[*key, finding.what] += 1
        if self.counts[key] <= MOST_SHOWN:
            self.shown.append(finding)

    def error(self, check: str, part: str, place: str, what: str, remedy: str) -> None:
        self.add(Finding("error", check, part, place, what, remedy))

    def warning(self, check: str, part: str, place: str, what: str, remedy: str) -> None:
        self.add(Finding("warning", check, part, place, what, remedy))

    def fault(self, part: str, source: str, error: UserError) -> None:
        """Add an error from the message of a reader: ``source, line 7: what; remedy``."""
        place, what, remedy = _split_fault(str(error), source)
        self.error(_check_of(what), part, place, what, remedy)

    def refusing(self, part: str, source: str) -> Refuse:
        """Return the function that a reader calls with each record that it leaves out."""
        return lambda error: self.fault(part, source, error)

    def total(self, severity: Severity) -> int:
        """Return the number of findings, shown or not."""
        return sum(count for (level, _, _), count in self.counts.items() if level == severity)

    def hidden(self) -> list[tuple[Severity, str, str, int]]:
        """Return severity, check and part of the findings not shown, with the number of each."""
        return [(*key, count - MOST_SHOWN) for key, count in self.counts.items() if count > MOST_SHOWN]

    def grouped(self) -> list[tuple[Finding, int]]:
        """Return the first finding of those that are alike, with their number, in the order of `ordered`."""
        groups: dict[tuple[Severity, str, str, str], Finding] = {}
        for finding in self.ordered():
            groups.setdefault((finding.severity, finding.check, finding.part, finding.what), finding)
        return [(finding, self.alike[key]) for key, finding in groups.items()]

    def unnamed(self) -> list[tuple[Severity, str, str, int]]:
        """Return severity, check and part of findings that are like none shown, with the number of each."""
        rest = self.counts.copy()
        for finding, count in self.grouped():
            rest[finding.severity, finding.check, finding.part] -= count
        return [(*key, count) for key, count in rest.items() if count > 0]

    def ordered(self) -> Sequence[Finding]:
        """Return the findings with errors first, otherwise in the order in which they were added."""
        return sorted(self.shown, key=lambda finding: finding.severity != "error")

    def record(self) -> JsonObject:
        """Return the findings as values for JSON."""
        return {
            "errors": self.total("error"),
            "warnings": self.total("warning"),
            "findings": [asdict(finding) for finding in self.ordered()],
            "not_shown": [
                {"severity": severity, "check": check, "part": part, "count": count}
                for severity, check, part, count in self.hidden()
            ],
        }


def split_message(error: UserError) -> tuple[str, str]:
    """Split a message of this package into what is wrong and the remedy."""
    what, _, remedy = str(error).partition("; ")
    return what, remedy or "fix it, or take it out"


def _split_fault(message: str, source: str) -> tuple[str, str, str]:
    """Split a reader's message into place, what is wrong and remedy, which it has in this order."""
    rest = message.removeprefix(source)
    located = _PLACE.match(rest) if rest != message else None
    place = source
    if located is not None:
        if where := located["place"]:
            line = re.fullmatch(r"line (\d+)(, .*)?", where)
            place = f"{source}:{line[1]}{line[2] or ''}" if line else f"{source}, {where}"
        rest = rest[located.end() :]
    return place, *split_message(UserError(rest.strip()))


def _check_of(what: str) -> str:
    if "not UTF-8" in what or "surrogate" in what:
        return "encoding"
    if "is already used at" in what:
        return "duplicate id"
    if re.match(r"head|tail|subj_|obj_", what) and re.search(r"\[-?\d|no span|overlap|both", what):
        return "offsets"
    return "malformed record"
