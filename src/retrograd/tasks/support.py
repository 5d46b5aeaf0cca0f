"""Tests of which passages support a target, by their words alone, for the copy likelihood of QA and dialogue.

An answer that stands in a passage is weak evidence: "two" or "London" stands in hundreds, nearly all about something
else, and learning from all of them alike teaches the wrong lesson. So both tests are sharpened: an answer that many
passages support supports nothing, and among the others the words around it count.

Neither reads the passages before it is first asked, so that a task without a warm start pays nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

from retrograd.data.examples import has_patterns
from retrograd.deferred import np
from retrograd.metrics.patterns import search_patterns
from retrograd.metrics.words import words_and_signs, words_without_signs
from retrograd.tasks.task import Support
from retrograd.tasks.text_index import Rows, TextIndex
from retrograd.types import Passage, UserError

__all__ = ["AnswerSupport", "OverlapSupport"]

_ARTICLES = frozenset({"a", "an", "the"})
_REMEMBERED = 1024
"""Answers kept, the last ones: a step asks for each several times, and a look-up may cost in proportion to the base."""


@dataclass(frozen=True)
class AnswerSupport:
    """A test that a passage holds the words of the answer one after the other (an article before them aside), or
    matches the answer where that is a pattern.

    ``most_share`` and ``most_passages``: an answer in more than that share of the passages, or in more than so many,
    supports none (one passage may always support). ``question_overlap``: the passage must also hold that share of the
    question's words, of those that any passage has, rare words counting more (`TextIndex.overlap`); 0 asks for none.
    Raises `UserError` for a share outside [0, 1] and fewer passages than 1.
    """

    most_share: float = 0.02
    most_passages: int = 100
    question_overlap: float = 0.2

    def __post_init__(self) -> None:
        _require_shares({"most_share": self.most_share, "question_overlap": self.question_overlap})
        _require_passages(self.most_passages)

    def among(self, passages: Iterable[Passage]) -> Support:
        """Return the test that gives the rows, ascending, of the passages whose text supports an example's target.

        Titles are not read.
        """
        texts = _Texts(passages)

        @lru_cache(_REMEMBERED)
        def rows_for(query: str, target: str, is_pattern: bool) -> Sequence[int]:
            index = texts.index
            rows = texts.rows_with_match(target) if is_pattern else index.rows_with_phrase(_phrase(target))
            if len(rows) > _limit(self.most_share, self.most_passages, len(index)):
                return ()
            if self.question_overlap > 0:
                query_words = [word for word in words_without_signs(query) if word in index]
                shares = index.overlap_at(rows, query_words)
                rows = rows[shares >= self.question_overlap]
            return tuple(rows.tolist())

        return lambda example: rows_for(example.query, example.target, has_patterns(example))


@dataclass(frozen=True)
class OverlapSupport:
    """A test that a passage holds enough words of the target, rare words counting more (`TextIndex.overlap`).

    ``least`` is the share of the words that it must hold; ``near_best`` the share, of what the best passage holds, that
    it must reach as well. ``most_share`` and ``most_passages`` as for `AnswerSupport`.
    Raises `UserError` for a share outside [0, 1], a ``least`` of 0 and fewer passages than 1.
    """

    least: float = 0.5
    near_best: float = 0.8
    most_share: float = 0.02
    most_passages: int = 100

    def __post_init__(self) -> None:
        _require_shares({"least": self.least, "near_best": self.near_best, "most_share": self.most_share})
        _require_passages(self.most_passages)
        if self.least == 0:
            raise UserError("least is 0, so every passage would support every target; expected a share above 0")

    def among(self, passages: Iterable[Passage]) -> Support:
        """Return the test that gives the rows, ascending, of the passages whose text supports an example's target.

        Titles are not read.
        """
        texts = _Texts(passages)

        @lru_cache(_REMEMBERED)
        def rows_for(target: str) -> Sequence[int]:
            index = texts.index
            shares = index.overlap(words_without_signs(target))
            threshold = max(self.least, self.near_best * shares.max(initial=0.0))
            rows: Rows = np.flatnonzero(shares >= threshold - 1e-9)  # sums of weights differ in the last bits
            return tuple(rows.tolist()) if len(rows) <= _limit(self.most_share, self.most_passages, len(index)) else ()

        return lambda example: rows_for(example.target)


class _Texts:
    """The index of the passages' texts, built when first needed; passages that can be read only once are kept."""

    def __init__(self, passages: Iterable[Passage]) -> None:
        self._passages = list(passages) if isinstance(passages, Iterator) else passages

    @cached_property
    def index(self) -> TextIndex:
        return TextIndex(passage.text for passage in self._passages)

    def rows_with_match(self, pattern: str) -> Rows:
        """Return the rows, ascending, of the texts in which the pattern matches: a pass over all of them."""
        rows = [row for row, passage in enumerate(self._passages) if search_patterns([pattern], passage.text)]
        return np.array(rows, dtype=np.int64)


def _limit(share: float, most_passages: int, passages: int) -> int:
    return min(most_passages, max(1, int(share * passages)))


def _phrase(target: str) -> Sequence[str]:
    """Return the words of a target, without an article before them."""
    phrase = words_and_signs(target)
    return phrase[1:] if len(phrase) > 1 and phrase[0] in _ARTICLES else phrase


def _require_shares(shares: Mapping[str, float]) -> None:
    """Raise `UserError` for the first share, by its name, that is outside [0, 1]."""
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{name} is {value}; expected a share from 0 to 1")


def _require_passages(most_passages: int) -> None:
    if most_passages < 1:
        raise UserError(f"most_passages is {most_passages}; expected 1 or more")
