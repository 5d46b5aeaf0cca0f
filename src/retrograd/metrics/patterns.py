"""Answers that are regular expressions, as those of CuratedTREC: ``Long Island|New\\s?York``.

They are read as DrQA and DPR read them (Chen et al. 2017, arXiv 1704.00051; Karpukhin et al. 2020, arXiv 2004.04906):
without regard to case, ``^`` and ``$`` at every line. An answer matches from its first character on, a passage
anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from retrograd.types import UserError

__all__ = ["compile_pattern", "looks_like_pattern", "plain_texts", "regex_match", "search_patterns"]

_FLAGS = re.IGNORECASE | re.MULTILINE
_SPECIAL = frozenset("\\.^$*+?{}[]()|")
_TELLTALE = re.compile(r"\\[sdwbSDWB.?()]|\.[*+]|\(\?|\[[^\]]*\][*+?]|\)[*+?]|\w\|\w")
"""What regular expressions have and answers seldom do. Brackets and question marks alone are common in both."""


@lru_cache(4096)
def compile_pattern(pattern: str) -> re.Pattern[str]:
    """Return the compiled pattern. Raises `UserError`, with the place, for one that is no regular expression."""
    try:
        return re.compile(pattern, _FLAGS)
    except (re.error, OverflowError, RecursionError) as error:
        raise UserError(
            f"the answer {pattern[:80]!r} is no regular expression ({error}); mend it, or set data.answers_are = "
            f'"text" where answers are plain text'
        ) from None


def regex_match(patterns: Sequence[str], answer: str) -> float:
    """Return 1.0 if any pattern matches the beginning of the answer, else 0.0. Raises `UserError` without a pattern."""
    if not patterns:
        raise UserError("an example has no gold answer; scoring needs at least one, so leave such examples out")
    return float(any(compile_pattern(pattern).match(answer.strip()) for pattern in patterns))


def search_patterns(patterns: Iterable[str], text: str) -> bool:
    """Return whether any pattern matches anywhere in the text; one that matches nothing at all, "" or "x*", never
    does."""
    return any(match.group() for pattern in patterns if (match := compile_pattern(pattern).search(text)))


def plain_texts(pattern: str) -> list[str]:
    """Return the texts that a pattern stands for, where it has no sign but ``|`` at the top and escaped signs; else
    none.

    A generator can be trained to write a text, not a pattern.
    """
    texts, text, escaped = [], "", False
    for sign in pattern:
        if escaped:
            if sign.isalnum():  # \s, \d, \1
                return []
            text, escaped = text + sign, False
        elif sign == "\\":
            escaped = True
        elif sign == "|":
            texts.append(text)
            text = ""
        elif sign in _SPECIAL:
            return []
        else:
            text += sign
    return [] if escaped else [stripped for one in (*texts, text) if (stripped := one.strip())]


def looks_like_pattern(answer: str) -> bool:
    """Return whether an answer is more likely a regular expression than text."""
    return _TELLTALE.search(answer) is not None
