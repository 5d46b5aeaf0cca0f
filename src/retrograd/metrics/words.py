"""Words of a text, as lexical search counts them, and a folded form to compare texts by."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["NonWords", "fold", "words"]

_WORD = re.compile(r"\w+")


def words(text: str, stop_words: frozenset[str] = frozenset()) -> list[str]:
    """Return runs of letters, digits and underscores, in NFKC and case-folded, without ``stop_words``. No stemming."""
    return [word for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) if word not in stop_words]


def fold(text: str) -> str:
    """Return a text with its case folded and runs of spaces collapsed, to compare texts and answers."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class NonWords:
    """Parts of the texts that retrievers read which are not words, so that search by words leaves them out.

    ``prefixes`` begin a text: an instruction to an encoder. ``marks`` stand anywhere: what parts two texts, or shows
    where something is missing.
    """

    prefixes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def remove_from(self, text: str) -> str:
        """Return the text without the first prefix that it begins with, and with a space for every mark."""
        text = text.removeprefix(next((prefix for prefix in self.prefixes if prefix and text.startswith(prefix)), ""))
        for mark in self.marks:
            if mark:
                text = text.replace(mark, " ")
        return text
