"""The one place that imports matplotlib, an optional dependency."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

from retrograd.types import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["make_figure", "require_matplotlib"]


def require_matplotlib() -> None:
    """Raise `UserError` where matplotlib is not installed; call it before long work whose result is drawn."""
    if find_spec("matplotlib") is None:
        raise UserError("pictures need matplotlib; install it with: pip install 'retrograd[plots]'")


def make_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches. Raises as `require_matplotlib` does."""
    require_matplotlib()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")
