"""The one place that imports matplotlib, an optional dependency."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrograd.util.optional import is_installed, require_package

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["NO_PICTURES", "escape_formulas", "has_matplotlib", "make_figure", "require_matplotlib"]


NO_PICTURES = "Pictures are left out: they need matplotlib; install it with: pip install 'retrograd[plots]'"


def has_matplotlib() -> bool:
    """Return whether matplotlib is installed."""
    return is_installed("matplotlib")


def require_matplotlib() -> None:
    """Raise `UserError` where matplotlib is not installed; call it before long work whose result is drawn."""
    require_package("a picture", "matplotlib", "plots")


def escape_formulas(text: str) -> str:
    """Return text in which matplotlib finds no formula: names may have two dollar signs."""
    return text.replace("$", r"\$")


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches. Raises as `require_matplotlib` does."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
