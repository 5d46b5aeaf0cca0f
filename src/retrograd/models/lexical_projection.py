r"""BM25 as an inner product of two vectors, so that one index searches by meaning and by words at once.

In a text t of |t| words, where the mean is ℓ, a word w that stands there f times has the weight

.. math:: s_t(w) = \frac{f}{f + k_1 (1 - b + b\,|t| / \ell)}.

With Lucene's idf, as `retrograd.corpus.lexical` has it, the text becomes H numbers,

.. math:: h(t) = \sum_w \sqrt{\mathrm{idf}(w)}\; s_t(w)\; r_w, \qquad r_w \in \mathbb{R}^H, \quad \lVert r_w \rVert = 1,

where r_w has four numbers that are not 0, ±½, one in each quarter; a hash of the word says where, and their signs. Over
hashes the mean of ⟨r_w, r_v⟩ is 0 for two words (a sparse Johnson-Lindenstrauss transform; Kane and Nelson 2014), so

.. math:: \mathbb{E}\,\langle h(x), h(z) \rangle = \sum_w \mathrm{idf}(w)\; s_x(w)\; s_z(w):

BM25, but that words of a query count less the oftener they stand there, as in a passage. The error falls as 1/√H.
There is no vocabulary: every word has its r_w, and to know idf(w) is to have counted the words of two texts or more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.io import fingerprint, read_json, write_json
from retrograd.metrics.words import words
from retrograd.records import read_record, record_mapping
from retrograd.types import UserError

__all__ = ["LexicalProjection", "WordStatistics"]

_K1, _B = 1.5, 0.75
_PARTS = 4


@dataclass(frozen=True)
class WordStatistics:
    """Of a base of ``texts``: the mean of their numbers of words, and how many texts hold each word of two or more."""

    texts: int
    mean_length: float
    frequency: Mapping[str, int]

    def __post_init__(self) -> None:
        if self.texts < 1 or not self.mean_length > 0 or not math.isfinite(self.mean_length):
            raise UserError(f"{self.texts} texts of {self.mean_length} words on average hold no word to search for")
        wrong = next((word for word, texts in self.frequency.items() if not 2 <= texts <= self.texts), None)
        if wrong is not None:
            raise UserError(
                f"{wrong!r} stands in {self.frequency[wrong]} of {self.texts} texts; expected a word of 2 of them or more"
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
        """log(1 + (N - n + ½) / (n + ½)); a word of no text counts as one of one."""
        n = self.frequency.get(word, 1)
        return math.log(1 + (self.texts - n + 0.5) / (n + 0.5))


@dataclass(frozen=True)
class _Scalars:
    dimension: int
    texts: int
    mean_length: float


class LexicalProjection:
    """Texts in, h(t) [B H] out: see above. The same texts give the same numbers on every machine.

    ``dimension`` is H. Raises `UserError` unless it is a multiple of 4.
    """

    def __init__(self, statistics: WordStatistics, dimension: int) -> None:
        if dimension < _PARTS or dimension % _PARTS:
            raise UserError(f"a lexical projection has a multiple of {_PARTS} numbers, 2048 say; found {dimension}")
        self.statistics = statistics
        self.dimension = dimension

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, "B H"]:
        """On the CPU, in fp32, without gradient; all of a text is read, however long. One pass, no loop over H."""
        bags = [Counter(words(text)) for text in texts]
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

    def fingerprint(self) -> str:
        """SHA-256 over what decides h."""
        s = self.statistics
        return fingerprint([f"{self.dimension} {_PARTS} {_K1} {_B} {s.texts} {s.mean_length!r}", str(s.frequency)])

    def save(self, path: Path) -> None:
        """Write a JSON file, which `load` reads."""
        s = self.statistics
        scalars = record_mapping(_Scalars(self.dimension, s.texts, s.mean_length))
        write_json(path, scalars | {"frequency": dict(s.frequency)})

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
        scalars = read_record(_Scalars, found, str(path))
        try:
            return cls(WordStatistics(scalars.texts, scalars.mean_length, held), scalars.dimension)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    def _directions(self, found: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The places [W 4] and signs [W 4] of each word's r_w."""
        digests = b"".join(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=16).digest() for word in found)
        drawn = np.frombuffer(digests, "<u4").reshape(-1, _PARTS).astype(np.int64)
        quarter = self.dimension // _PARTS
        return (drawn >> 1) % quarter + quarter * np.arange(_PARTS), 1.0 - 2.0 * (drawn & 1)
