r"""Compute BM25 as an inner product of two vectors, so that one index searches by meaning and by words at once.

In a text t of |t| words, where the mean is ℓ, a word w that occurs f times has the weight

.. math:: s_t(w) = \frac{f}{f + k_1 (1 - b + b\,|t| / \ell)}.

With Lucene's idf, as `retrograd.index.bm25` has it, the text becomes H numbers,

.. math:: h(t) = \sum_w \sqrt{\mathrm{idf}(w)}\; s_t(w)\; r_w, \qquad r_w \in \mathbb{R}^H, \quad \lVert r_w \rVert = 1,

where r_w has four numbers that are not 0, ±½, one in each quarter; a hash of the word decides their positions and
signs. Over hashes the mean of ⟨r_w, r_v⟩ is 0 for two words (a sparse Johnson-Lindenstrauss transform; Kane and Nelson
2014), so

.. math:: \mathbb{E}\,\langle h(x), h(z) \rangle = \sum_w \mathrm{idf}(w)\; s_x(w)\; s_z(w):

BM25, but that the words of a query are saturated and normalised by its length like those of a passage, which changes
no ranking where each stands once, and how large the scores of a query are: each counts 0.7 in a short one, 0.4 in one
as long as a passage. The error falls as 1/√H. There is no vocabulary: every word has its r_w, and only words of at
least two texts are stored; all others count as standing in one.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.metrics.words import WORDS_VERSION, NonWords, require_same_words, words
from retrograd.types import UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["LexicalProjection", "WordStatistics"]

_K1, _B = 1.5, 0.75
_PARTS = 4
_NOTHING = NonWords()


@dataclass(frozen=True)
class WordStatistics:
    """Word counts of a base: the mean number of words, and how many of ``texts`` hold each word of two or more."""

    texts: int
    mean_length: float
    frequency: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.texts < 1 or not self.mean_length > 0 or not math.isfinite(self.mean_length):
            raise UserError(
                f"{self.texts} texts of {self.mean_length:g} words on average hold no word to search for; give others, "
                f"or search without words (retriever.lexical_dimensions = 0)"
            )
        wrong = next((word for word, texts in self.frequency.items() if not 2 <= texts <= self.texts), None)
        if wrong is not None:
            raise UserError(
                f"the frequency of {wrong!r} is {self.frequency[wrong]} of {self.texts} texts; expected from 2 to "
                f"all of them"
            )

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordStatistics:
        """Count the words of texts, one text at a time. Raises `UserError` if no text has a word."""
        count, length, frequency = 0, 0, Counter[str]()
        for text in texts:
            own = words(text)
            count, length = count + 1, length + len(own)
            frequency.update(set(own))
        repeated = {word: texts for word, texts in sorted(frequency.items()) if texts > 1}
        return cls(count, length / max(1, count), repeated)

    def idf(self, word: str) -> float:
        """Return log(1 + (N - n + ½) / (n + ½)); a word in no text counts as one in a single text."""
        n = self.frequency.get(word, 1)
        return math.log(1 + (self.texts - n + 0.5) / (n + 0.5))


@dataclass(frozen=True)
class _Settings:
    dimension: int
    texts: int
    mean_length: float
    prefixes: tuple[str, ...]
    marks: tuple[str, ...] = ()
    words: int = 1


class LexicalProjection:
    """The map from texts to h(t) [B H], as in the module's equations.

    Equal texts give equal numbers on every machine whose Python has the same Unicode version.

    ``dimension`` is H. ``non_words`` is left out of a text. Raises `UserError` unless H is a multiple of 4.
    """

    def __init__(self, statistics: WordStatistics, dimension: int, non_words: NonWords = _NOTHING) -> None:
        if dimension < _PARTS or dimension % _PARTS:
            raise UserError(
                f"the dimension of a lexical projection is {dimension}; expected a multiple of {_PARTS}, such as 2048"
            )
        self.statistics = statistics
        self.dimension = dimension
        self.non_words = non_words

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B H"]:
        """Return h(t) of whole texts, on the CPU, in fp32, without gradient."""
        bags = [Counter(words(self.non_words.remove_from(text))) for text in texts]
        number = {word: i for i, word in enumerate(dict.fromkeys(word for bag in bags for word in bag))}
        if not number:
            return torch.zeros(len(texts), self.dimension)
        place, sign = self._directions(list(number))
        line = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
        word = np.fromiter((number[word] for bag in bags for word in bag), np.int64, len(line))
        times = np.fromiter((times for bag in bags for times in bag.values()), np.float64, len(line))
        length = np.array([bag.total() for bag in bags])[line]
        saturation = times / (times + _K1 * (1 - _B + _B * length / self.statistics.mean_length))
        root_idf = np.sqrt(np.array([self.statistics.idf(key) for key in number]))
        weight = (saturation * root_idf[word])[:, None] * sign[word] / math.sqrt(_PARTS)
        where = line[:, None] * self.dimension + place[word]
        total = np.bincount(where.ravel(), weight.ravel(), len(texts) * self.dimension)
        return torch.from_numpy(total.astype(np.float32)).view(len(texts), self.dimension)

    @cached_property
    def fingerprint(self) -> str:
        """The SHA-256 of all that decides h."""
        s = self.statistics
        frequencies = (f"{word} {texts}" for word, texts in sorted(s.frequency.items()))
        used = f"{self.dimension} {_PARTS} {_K1} {_B} {s.texts} {s.mean_length!r} {self.non_words.prefixes}"
        return fingerprint([used, *self.non_words.marks, *frequencies])

    def save(self, path: Path) -> None:
        """Write a JSON file, which `load` reads."""
        s = self.statistics
        non_words = (self.non_words.prefixes, self.non_words.marks)
        settings = record_mapping(_Settings(self.dimension, s.texts, s.mean_length, *non_words, words=WORDS_VERSION))
        write_json(path, settings | {"frequency": dict(s.frequency)})

    @classmethod
    def load(cls, path: Path) -> LexicalProjection:
        """Read what `save` wrote. Raises `UserError` for anything else."""
        content = read_json(path)
        frequency = content.pop("frequency", None) if isinstance(content, dict) else None
        if not isinstance(content, dict) or not isinstance(frequency, dict):
            raise UserError(f"{path} holds no lexical projection; expected an object with the frequency of words")
        counts = {word: texts for word, texts in frequency.items() if type(texts) is int}
        if len(counts) < len(frequency):
            raise UserError(f"{path}: expected frequency to map each word to the whole number of texts that have it")
        settings = read_record(_Settings, content, str(path))
        require_same_words(settings.words, counts, str(path))
        try:
            statistics = WordStatistics(settings.texts, settings.mean_length, counts)
            return cls(statistics, settings.dimension, NonWords(settings.prefixes, settings.marks))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _directions(self, unique_words: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions [W 4] and signs [W 4] of each word's r_w."""
        digests = b"".join(
            blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest() for word in unique_words
        )
        hashes = np.frombuffer(digests, "<u4").reshape(-1, _PARTS).astype(np.int64)
        quarter = self.dimension // _PARTS
        return (hashes >> 1) % quarter + quarter * np.arange(_PARTS), 1.0 - 2.0 * (hashes & 1)
