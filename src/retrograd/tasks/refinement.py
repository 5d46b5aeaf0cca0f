"""From what a model wrote to a label, by rules that never guess; what no rule reads is an invalid answer.

In this order: the words of one label and nothing else, but for case and spaces (``exact``), but for punctuation too
(``punctuation``), or behind the last colon of an answer that repeats the question (``after colon``); then the words of
one label of two words or more somewhere within the answer (``contained``). Words that stand inside those of another
label are not counted, so "part of whole reversed" is never read as "part of whole"; two labels, or a word that negates,
are ``ambiguous``. A single word within a sentence ("the other relation") is no answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Refined", "Rule", "refined"]

Rule = Literal["exact", "punctuation", "after colon", "contained", "ambiguous", "nothing"]

_WORD = re.compile(r"\w+(?:['’]\w+)*")
_NEGATIONS = frozenset(["not", "no", "never", "neither", "nor", "without", "cannot", "none"])
_LEAST_WORDS = 2

_Words = tuple[str, ...]


@dataclass(frozen=True)
class Refined:
    """A label, or None for an invalid answer, and the rule that says so."""

    label: str | None
    rule: Rule

    @property
    def is_exact(self) -> bool:
        """Whether the answer was the label's words as they are."""
        return self.rule == "exact"


def refined(answer: str, phrases: Mapping[str, Iterable[str]]) -> Refined:
    """The label that ``answer`` names, by the module's rules but for "exact"; ``phrases`` are the words of each."""
    words = [(label, _words(text)) for label, texts in phrases.items() for text in texts]
    parts: dict[Rule, str] = {"punctuation": answer, "after colon": answer.rpartition(":")[2]}
    for rule, part in parts.items():
        said = _words(part)
        labels = {label for label, own in words if own and own == said}
        if len(labels) == 1:
            return Refined(labels.pop(), rule)
    return _contained(_words(answer), words)


def _contained(said: _Words, words: list[tuple[str, _Words]]) -> Refined:
    found = [
        (start, start + len(own), label)
        for label, own in words
        if len(own) >= _LEAST_WORDS
        for start in range(len(said) - len(own) + 1)
        if said[start : start + len(own)] == own
    ]
    whole = [(start, end, label) for start, end, label in found if not _inside(start, end, found)]
    labels = {label for _, _, label in whole}
    if not labels:
        return Refined(None, "nothing")
    covered = {place for start, end, _ in whole for place in range(start, end)}
    if len(labels) > 1 or any(_negates(word) for place, word in enumerate(said) if place not in covered):
        return Refined(None, "ambiguous")
    return Refined(labels.pop(), "contained")


def _inside(start: int, end: int, found: list[tuple[int, int, str]]) -> bool:
    """Whether a longer occurrence covers this one."""
    return any(a <= start and end <= b and b - a > end - start for a, b, _ in found)


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith(("n't", "n’t"))


def _words(text: str) -> _Words:
    return tuple(_WORD.findall(text.casefold()))
