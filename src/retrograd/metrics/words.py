"""The words of a text as lexical search counts them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

__all__ = ["Unsaid", "fold", "words"]

_WORD = re.compile(r"\w+")


def words(text: str, stop_words: frozenset[str] = frozenset()) -> list[str]:
    """Runs of letters, digits and underscores, in NFKC and case-folded, without ``stop_words``. No stemming."""
    return [word for word in _WORD.findall(unicodedata.normalize("NFKC", text).casefold()) if word not in stop_words]


def fold(text: str) -> str:
    """Return a text with its case folded and runs of spaces made one: what texts and answers are compared by."""
    return " ".join(text.casefold().split())


@dataclass(frozen=True, slots=True)
class Unsaid:
    """What stands in the texts that retrievers read and is no word of them, so that search by words leaves it out.

    ``prefixes`` begin a text: an instruction to an encoder. ``marks`` stand anywhere: what parts two texts, or shows
    where something is missing.
    """

    prefixes: tuple[str, ...] = ()
    marks: tuple[str, ...] = ()

    def left_out(self, text: str) -> str:
        """The text without the first of the prefixes that it begins with, and with a space for every mark."""
        text = text.removeprefix(next((one for one in self.prefixes if one and text.startswith(one)), ""))
        for mark in self.marks:
            if mark:
                text = text.replace(mark, " ")
        return text
