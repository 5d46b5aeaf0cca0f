"""The words of a text as lexical search counts them."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["words"]

_WORD = re.compile(r"\w+")


def words(text: str, stop_words: frozenset[str] = frozenset()) -> list[str]:
    """Runs of letters, digits and underscores, in NFKC and case-folded, without ``stop_words``. No stemming."""
    return [word for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) if word not in stop_words]
