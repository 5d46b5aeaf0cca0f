"""The HTML page of a study: see `retrograd.studies.report_study` for what it says."""

from __future__ import annotations

from pathlib import Path

from retrograd.report.html import render, write_page
from retrograd.report.run_page import PAGE, RELOAD_SECONDS
from retrograd.studies.report_study import StudyPage

__all__ = ["format_study_page", "save_study_page"]


def save_study_page(page: StudyPage, folder: Path) -> Path:
    """Write the page into a folder, whole or not at all, and return its path."""
    write_page(format_study_page(page), folder / PAGE)
    return folder / PAGE


def format_study_page(page: StudyPage) -> str:
    """Return the page as HTML; it loads itself again until the study has ended."""
    context = {"title": f"{page.name} · retrograd", "page": page}
    styles = ["style.css", "uplot.min.css", "pages.css"]
    refresh = 0 if page.is_finished else RELOAD_SECONDS
    return render("study.html", context, ["uplot.min.js", "report.js", "print.js"], styles, refresh)
