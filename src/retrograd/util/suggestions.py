"""The nearest known name, for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["advice"]


def advice(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` where a known name is close or begins so, else the known names (at most twelve)."""
    names = list(known)
    by_key = {candidate.casefold(): candidate for candidate in names}
    longer = [candidate for candidate in names if name and candidate.casefold().startswith(name.casefold())]
    if len(longer) == 1:
        return f"did you mean {longer[0]!r}?"
    close = get_close_matches(name.casefold(), by_key, n=1, cutoff=0.6)
    if close:
        return f"did you mean {by_key[close[0]]!r}?"
    shown = ", ".join(repr(candidate) for candidate in names[:12])
    return f"known: {shown}{', …' if len(names) > 12 else ''}."
