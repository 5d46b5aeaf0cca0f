"""The HTML page of a run: see `retrograd.studies.report_page` for what it says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from retrograd.report.confidence import BIN_HEADINGS, CURVE_HEADINGS, RISK_NOTE, view_confidence
from retrograd.report.html import fit_page, render, write_page
from retrograd.studies.report_page import RunPage

__all__ = ["PAGE", "RELOAD_SECONDS", "format_run_page", "save_run_page"]

PAGE = "report.html"
"""The name of the page's file."""

RELOAD_SECONDS = 10
"""How often the page of a run that is training loads itself again."""


def save_run_page(page: RunPage, folder: Path) -> Path:
    """Write the page into a folder, whole or not at all, and return its path."""
    write_page(format_run_page(page), folder / PAGE)
    return folder / PAGE


def format_run_page(page: RunPage) -> str:
    """Return the page as HTML: smaller than `MOST_BYTES`, with fewer examples where their texts are long."""
    examples = 0 if page.sample is None else len(page.sample.examples)
    return fit_page(lambda shown: _format(page, shown), examples)


def _format(page: RunPage, shown: int) -> str:
    examples = () if page.sample is None else page.sample.examples[:shown]
    context = {
        "title": f"{page.name} · retrograd",
        "page": page,
        "shown": examples,
        "sections": list(_sections(page, bool(examples))),
        "confidence": None if page.confidence is None else view_confidence(page.confidence),
        "bin_headings": BIN_HEADINGS,
        "curve_headings": CURVE_HEADINGS,
        "risk_note": RISK_NOTE,
    }
    scripts = ["uplot.min.js", "report.js", "print.js"]
    styles = ["style.css", "uplot.min.css", "pages.css"]
    return render("run.html", context, scripts, styles, RELOAD_SECONDS if page.state == "training" else 0)


def _sections(page: RunPage, has_examples: bool) -> Iterator[tuple[str, str]]:
    """Yield the anchors and titles of the sections that the page has."""
    sections = {
        "curves": ("Curves", page.charts),
        "systems": ("Controls", page.systems),
        "retrieval": ("Retrieval", page.retrieval),
        "relations": ("Relations", page.relations),
        "confusions": ("Confusions", page.confusions),
        "neighbours": ("Neighbours", has_examples),
        "slices": ("Slices", page.slices),
        "confidence": ("Confidence", page.confidence),
        "hubs": ("Most read", page.hubs),
        "alarms": ("Alarms and cost", page.costs),
        "settings": ("Settings", True),
        "environment": ("Environment", page.environment),
        "notes": ("Notes", page.notes),
    }
    return ((name, title) for name, (title, content) in sections.items() if content)
