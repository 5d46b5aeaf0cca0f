"""The least that a number may be, for settings."""

from __future__ import annotations

from collections.abc import Mapping

from retrograd.types import UserError

__all__ = ["require_at_least"]


def require_at_least(least: int, values: Mapping[str, int | float]) -> None:
    """Raise `UserError` for the first of ``values``, by the names of their settings, that is below ``least`` or NaN."""
    for name, value in values.items():
        if not value >= least:  # NaN is in no order
            raise UserError(f"{name} is {value}; it must be at least {least}")
