"""An inverted index of words with positions, for cheap tests of which texts support a target.

Texts are read by `words_and_signs`. That is how DPR compares answers with passages (Karpukhin et al. 2020, "Dense
Passage Retrieval for Open-Domain Question Answering", arXiv 2004.04906; there after DrQA, Chen et al. 2017, arXiv
1704.00051): an answer is in a passage if its words stand there one after the other, so that "art" is not in "party" and
"U.S." is in "U. S.". Where a script has no spaces, its characters stand for words.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

from retrograd.deferred import Float64, Integer, np
from retrograd.metrics.words import words_and_signs

__all__ = ["TextIndex", "count_texts_with", "has_answer"]

_BOUNDARY = 0

Rows: TypeAlias = 'Integer[np.ndarray, " R"]'
Places: TypeAlias = 'Integer[np.ndarray, " _"]'


def has_answer(answers: Iterable[str], text: str) -> bool:
    """Return whether the words of any answer appear in the text, one after the other; an answer without words never
    does.
    """
    # Between bars no word can run into the next, and no word holds a gap.
    text_with_spaces = f" {' '.join(words_and_signs(text))} "
    answers_with_spaces = (f" {' '.join(words)} " for answer in answers if (words := words_and_signs(answer)))
    return any(answer in text_with_spaces for answer in answers_with_spaces)


def count_texts_with(answers: Iterable[str], texts: Iterable[str]) -> dict[str, int]:
    """Return in how many texts each answer appears, by the test of `has_answer`.

    Every text is read once and none is kept, so that memory does not grow with their number.
    """
    phrases = {answer: tuple(words_and_signs(answer)) for answer in answers}
    lengths: defaultdict[str, set[int]] = defaultdict(set)
    for phrase in phrases.values():
        if phrase:
            lengths[phrase[0]].add(len(phrase))
    wanted = set(phrases.values())
    count: Counter[tuple[str, ...]] = Counter()
    for text in texts:
        tokens = words_and_signs(text)
        count.update(
            {
                phrase
                for start, token in enumerate(tokens)
                for length in lengths.get(token, ())
                if (phrase := tuple(tokens[start : start + length])) in wanted
            }
        )
    return {answer: count[phrase] for answer, phrase in phrases.items()}


class TextIndex:
    """N texts, addressed by row, searched by words and by phrases.

    12 bytes a word and one dictionary of the distinct words; 10⁵ passages of 100 words take about 0.2 GB. A look-up
    costs in proportion to how often the rarest word of a phrase occurs, not to N.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        """Read the texts once, in order of rows."""
        numbers: dict[str, int] = {}
        stream, lengths = array("i", [_BOUNDARY]), array("i")
        for text in texts:
            tokens = words_and_signs(text)
            stream.extend(numbers.setdefault(word, len(numbers) + 1) for word in tokens)
            stream.append(_BOUNDARY)  # no phrase holds it, so none runs from one text into the next
            lengths.append(len(tokens) + 1)
        self._numbers = numbers
        self._stream = np.frombuffer(stream, dtype=np.int32)
        # Text r takes the places ends[r] + 1 … ends[r + 1], the last being its boundary.
        self._ends = np.concatenate([[0], np.cumsum(np.asarray(lengths, dtype=np.int64))])
        of_word = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        self._row = np.concatenate([np.zeros(1, dtype=np.int32), of_word])  # the first boundary is of no text
        narrow = np.int32 if len(stream) < 2**31 else np.int64
        self._places = np.argsort(self._stream, kind="stable").astype(narrow)
        self._starts = np.searchsorted(self._stream, np.arange(len(numbers) + 2), sorter=self._places)
        self._texts = self._texts_by_word()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __contains__(self, word: str) -> bool:
        """Return whether any text holds the word."""
        return word in self._numbers

    def rows_with_phrase(self, phrase: Sequence[str]) -> Rows:
        """Return the rows, ascending, of the texts that hold the words one after the other; none for no words."""
        numbers = [self._numbers.get(word, -1) for word in phrase]
        if not numbers or min(numbers) < 0:
            return np.zeros(0, dtype=np.int64)
        occurrences = [int(self._starts[number + 1] - self._starts[number]) for number in numbers]
        rarest = occurrences.index(min(occurrences))
        first = self._places_of(numbers[rarest]) - rarest
        # A boundary stands at either end of the stream, so that a phrase that fits no more ends at it.
        first = first[(first > 0) & (first + len(numbers) < len(self._stream))]
        for offset, number in enumerate(numbers):
            first = first[self._stream[first + offset] == number]
        return self._rows_at(first)

    def rows_with_word(self, word: str) -> Rows:
        """Return the rows, ascending, of the texts that hold a word."""
        return self._rows_at(self._places_of(self._numbers.get(word, -1)))

    def rarity(self, word: str) -> float:
        """Return the inverse document frequency in nats: log((N + 1) / (n + 1)) for a word of n texts, log(N + 1) for
        an unknown one.

        0 for a word of more than half of the texts: it says nothing of any of them.
        """
        texts = int(self._texts[self._numbers.get(word, _BOUNDARY)])
        return math.log((len(self) + 1) / (texts + 1)) if 2 * texts <= len(self) else 0.0

    def overlap(self, target_words: Iterable[str]) -> Float64[np.ndarray, " N"]:
        """Return for each row the share of the given words that its text holds, each word counted once and by its
        `rarity`.

        A word that no text holds is the rarest: where it is wanted, no share reaches 1.
        """
        weight = self._weights(target_words)
        rows = [self.rows_with_word(word) for word in weight]
        spread = np.repeat(list(weight.values()), [len(rows_of_word) for rows_of_word in rows])
        rows_of_word = np.bincount(np.concatenate([np.zeros(0, np.int64), *rows]), spread, minlength=len(self))
        return rows_of_word / (sum(weight.values()) or 1.0)

    def overlap_at(self, rows: Rows, target_words: Iterable[str]) -> Float64[np.ndarray, " R"]:
        """Return `overlap` of a few rows, without reading any other."""
        weight = self._weights(target_words)
        shares = np.zeros(len(rows))
        for word, share in weight.items():
            places = self._places_of(self._numbers.get(word, -1))
            first, last = (np.searchsorted(places, self._ends[rows + step], side="right") for step in (0, 1))
            shares += share * (first < last)
        return shares / (sum(weight.values()) or 1.0)

    def _weights(self, target_words: Iterable[str]) -> dict[str, float]:
        """Return rarities above 0, in an order that does not depend on the set's."""
        return {word: weight for word in sorted(set(target_words)) if (weight := self.rarity(word)) > 0}

    def _texts_by_word(self) -> Integer[np.ndarray, " V"]:
        """Return in how many texts each word appears; 0 for the boundary."""
        word, row = self._stream[self._places], self._row[self._places]
        first = np.concatenate([[True], (word[1:] != word[:-1]) | (row[1:] != row[:-1])])
        count = np.bincount(word[first], minlength=len(self._numbers) + 1)
        count[_BOUNDARY] = 0
        return count

    def _places_of(self, number: int) -> Places:
        """Return the positions of a word, ascending; none for the number of an unknown word, -1."""
        last = self._starts[number + 1] if number >= 0 else 0
        return self._places[self._starts[max(number, 0)] if last else 0 : last].astype(np.int64)

    def _rows_at(self, places: Places) -> Rows:
        rows = self._row[places].astype(np.int64)
        return rows[np.concatenate([[True], rows[1:] != rows[:-1]])] if len(rows) else rows
