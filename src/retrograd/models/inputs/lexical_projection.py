r"""BM25 as an inner product of two vectors, so that one index searches by meaning and by words at once.

In a text t of |t| words, where the mean is ℓ, a word w that stands there f times has the weight

.. math:: s_t(w) = \frac{f}{f + k_1 (1 - b + b\,|t| / \ell)}.

With Lucene's idf, as `retrograd.index.bm25` has it, the text becomes H numbers,

.. math:: h(t) = \sum_w \sqrt{\mathrm{idf}(w)}\; s_t(w)\; r_w, \qquad r_w \in \mathbb{R}^H, \quad \lVert r_w \rVert = 1,

where r_w has four numbers that are not 0, ±½, one in each quarter; a hash of the word says where, and their signs. Over
hashes the mean of ⟨r_w, r_v⟩ is 0 for two words (a sparse Johnson-Lindenstrauss transform; Kane and Nelson 2014), so

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

from retrograd.metrics.words import Unsaid, words
from retrograd.types import UserError
from retrograd.util.fingerprints import fingerprint
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["LexicalProjection", "WordStatistics"]

_K1, _B = 1.5, 0.75
_PARTS = 4
_NOTHING = Unsaid()


@dataclass(frozen=True)
class WordStatistics:
    """Of a base of ``texts``: the mean of their numbers of words, and how many texts hold each word of two or more."""

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
                f"{wrong!r} is said to stand in {self.frequency[wrong]} of {self.texts} texts; expected 2 or more, and "
                f"no more than there are"
            )

    @classmethod
    def of(cls, texts: Iterable[str]) -> WordStatistics:
        """Counted, one text at a time. Raises `UserError` if no text holds a word."""
        count, length, frequency = 0, 0, Counter[str]()
        for text in texts:
            found = words(text)
            count, length = count + 1, length + len(found)
            frequency.update(set(found))
        kept = {word: texts for word, texts in sorted(frequency.items()) if texts > 1}
        return cls(count, length / max(1, count), kept)

    def idf(self, word: str) -> float:
        """log(1 + (N - n + ½) / (n + ½)); a word in no text counts as one in a single text."""
        n = self.frequency.get(word, 1)
        return math.log(1 + (self.texts - n + 0.5) / (n + 0.5))


@dataclass(frozen=True)
class _Settings:
    dimension: int
    texts: int
    mean_length: float
    prefixes: tuple[str, ...]
    marks: tuple[str, ...] = ()


class LexicalProjection:
    """Texts in, h(t) [B H] out: see above. The same texts give the same numbers on every machine, as far as its Python
    has the same Unicode.

    ``dimension`` is H. A text is read without what is ``unsaid``. Raises `UserError` unless H is a multiple of 4.
    """

    def __init__(self, statistics: WordStatistics, dimension: int, unsaid: Unsaid = _NOTHING) -> None:
        if dimension < _PARTS or dimension % _PARTS:
            raise UserError(f"a lexical projection has a multiple of {_PARTS} numbers, 2048 say; found {dimension}")
        self.statistics = statistics
        self.dimension = dimension
        self.unsaid = unsaid

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B H"]:
        """On the CPU, in fp32, without gradient; all of a text is read, however long. One pass, no loop over H."""
        bags = [Counter(words(self.unsaid.left_out(text))) for text in texts]
        number = {word: i for i, word in enumerate(dict.fromkeys(word for bag in bags for word in bag))}
        if not number:
            return torch.zeros(len(texts), self.dimension)
        place, sign = self._directions(list(number))
        line = np.repeat(np.arange(len(bags)), [len(bag) for bag in bags])
        word = np.fromiter((number[word] for bag in bags for word in bag), np.int64, len(line))
        times = np.fromiter((times for bag in bags for times in bag.values()), np.float64, len(line))
        length = np.array([bag.total() for bag in bags])[line]
        saturation = times / (times + _K1 * (1 - _B + _B * length / self.statistics.mean_length))
        root_idf = np.sqrt(np.array([self.statistics.idf(one) for one in number]))
        weight = (saturation * root_idf[word])[:, None] * sign[word] / math.sqrt(_PARTS)
        where = line[:, None] * self.dimension + place[word]
        found = np.bincount(where.ravel(), weight.ravel(), len(texts) * self.dimension)
        return torch.from_numpy(found.astype(np.float32)).view(len(texts), self.dimension)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over what decides h."""
        s = self.statistics
        counted = (f"{word} {texts}" for word, texts in sorted(s.frequency.items()))
        used = f"{self.dimension} {_PARTS} {_K1} {_B} {s.texts} {s.mean_length!r} {self.unsaid.prefixes}"
        return fingerprint([used, *self.unsaid.marks, *counted])

    def save(self, path: Path) -> None:
        """Write a JSON file, which `load` reads."""
        s = self.statistics
        unsaid = (self.unsaid.prefixes, self.unsaid.marks)
        settings = record_mapping(_Settings(self.dimension, s.texts, s.mean_length, *unsaid))
        write_json(path, settings | {"frequency": dict(s.frequency)})

    @classmethod
    def load(cls, path: Path) -> LexicalProjection:
        """Read what `save` wrote. Raises `UserError` for anything else."""
        found = read_json(path)
        frequency = found.pop("frequency", None) if isinstance(found, dict) else None
        if not isinstance(found, dict) or not isinstance(frequency, dict):
            raise UserError(f"{path} holds no lexical projection; expected an object with the frequency of words")
        held = {word: texts for word, texts in frequency.items() if type(texts) is int}
        if len(held) < len(frequency):
            raise UserError(f"{path}: frequency says of each word, by a whole number, how many texts hold it")
        settings = read_record(_Settings, found, str(path))
        try:
            statistics = WordStatistics(settings.texts, settings.mean_length, held)
            return cls(statistics, settings.dimension, Unsaid(settings.prefixes, settings.marks))
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _directions(self, found: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The places [W 4] and signs [W 4] of each word's r_w."""
        digests = b"".join(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest() for word in found)
        drawn = np.frombuffer(digests, "<u4").reshape(-1, _PARTS).astype(np.int64)
        quarter = self.dimension // _PARTS
        return (drawn >> 1) % quarter + quarter * np.arange(_PARTS), 1.0 - 2.0 * (drawn & 1)
