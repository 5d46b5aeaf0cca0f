"""BM25 over the texts of a base: the baseline that needs no training, and a source of extra candidates.

The only file that knows bm25s. A passage's score is the sum, over the words of the query, of idf · tf / (tf + k₁ (1 - b
+ b · length / mean length)) (Robertson and Zaragoza 2009, "The Probabilistic Relevance Framework"), as Lucene does:
idf = log(1 + (N - n + ½) / (n + ½)) > 0 for a word of n texts. Scores are no log-probabilities: there is no log Z.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from retrograd.index.disk.storage import MANIFEST, index_directory, read_sealed, require_same, write_sealed
from retrograd.index.protocol import Neighbours, require_rows
from retrograd.metrics.words import WORDS_VERSION, require_same_words, words
from retrograd.types import UserError
from retrograd.util.files import find_current_or_backup, open_to_umask
from retrograd.util.optional import require_package
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

if TYPE_CHECKING:
    import bm25s

__all__ = ["ENGLISH_STOP_WORDS", "LexicalIndex", "LexicalSettings"]

_STOP_WORDS = """
a an and are as at be been but by for from had has have he her his how if in into is it its no not of on or she
so such that the their them then there these they this to was we were what when which who will with you
"""
ENGLISH_STOP_WORDS = tuple(_STOP_WORDS.split())
"""Frequent English function words. BM25's idf weighs them little anyway: to leave them out saves time, not errors."""

_SCORES, _TERMS = "scores.safetensors", "terms.json"
_ARRAYS = {"data": np.float32, "indices": np.int32, "indptr": np.int32}


@dataclass(frozen=True)
class LexicalSettings:
    """Settings of BM25: k₁ (how soon repetition saturates), b (how much length counts, in [0, 1]) and stop words."""

    k1: float = 1.5
    b: float = 0.75
    stop_words: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.k1 < 0 or not 0 <= self.b <= 1:
            raise UserError(f"k1 is {self.k1} and b is {self.b}; expected k1 >= 0 and b from 0 to 1")


@dataclass(frozen=True)
class _Manifest:
    base_fingerprint: str
    rows: int
    settings: LexicalSettings
    kind: str = "bm25"
    words: int = 1


class LexicalIndex:
    """An index of N texts, addressed by row number and searched by words. Create it with `build` or `load`.

    Not an `Index`: its queries are texts, and it has no vectors. Memory: 8 bytes for each distinct word of each text;
    a search takes O(N) per query.
    """

    def __init__(
        self, scores: bm25s.BM25, terms: dict[str, int], settings: LexicalSettings, base_fingerprint: str
    ) -> None:
        """Keep the parts of an index; use `build` or `load` to create one."""
        self.base_fingerprint = base_fingerprint
        self.settings = settings
        self._scores = scores
        self._terms = terms
        self._stop_words = frozenset(settings.stop_words)

    @classmethod
    def build(
        cls, texts: Iterable[str], base_fingerprint: str, settings: LexicalSettings = LexicalSettings()
    ) -> LexicalIndex:
        """Index texts in the order of rows. Equal texts give the same index, bit for bit.

        Raises `UserError` without bm25s, for no texts, and if no text holds a word.
        """
        stop_words = frozenset(settings.stop_words)
        terms: dict[str, int] = {}
        # ids by first appearance: bm25s's own ids follow the order of a set of strings, which changes with every start
        ids = [[terms.setdefault(word, len(terms)) for word in words(text, stop_words)] for text in texts]
        if not terms:
            raise UserError(f"none of the {len(ids)} texts holds a word to search for; check the base and stop_words")
        scores = _bm25s().BM25(k1=settings.k1, b=settings.b, method="lucene", dtype="float32", backend="numpy")
        scores.index((ids, dict(terms)), show_progress=False)  # a copy: bm25s adds a term of its own
        return cls(scores, terms, settings, base_fingerprint)

    def __len__(self) -> int:
        return self._scores.scores["num_docs"]

    def search(self, texts: Sequence[str], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        """Return the k best rows of each query text, never one of ``exclude`` (row numbers, -1 is padding).

        ``logit`` is the BM25 score (fp32), equal ones by row; ``log_normaliser`` is None. A row that shares no word
        with the query is never returned: fewer than k are padded with -1 and ``-inf``. Words count as often as the
        query holds them. Raises `ValueError` if k < 1, for a single string, and if ``exclude`` does not fit.
        """
        if isinstance(texts, str):  # a sequence too, of letters
            raise ValueError(f"texts is the string {texts!r}; expected a list of texts: [{texts!r}]")
        if k < 1:
            raise ValueError(f"k is {k}; expected at least 1")
        if exclude is not None:
            if len(exclude) != len(texts):
                raise ValueError(f"exclude has {len(exclude)} lines for {len(texts)} texts; give each its own")
            require_rows(exclude, len(self))
        row = torch.full((len(texts), k), -1, dtype=torch.long)
        logit = torch.full((len(texts), k), -torch.inf)
        for line, text in enumerate(texts):
            score = self._score_rows(text)
            if exclude is not None:
                score[exclude[line][exclude[line] >= 0].cpu()] = 0
            matches = score.nonzero()[:, 0]
            best, order = score[matches].sort(descending=True, stable=True)
            row[line, : len(order)] = matches[order[:k]]
            logit[line, : len(order)] = best[:k]
        return Neighbours(row, logit, None)

    def save(self, path: Path) -> None:
        """Atomically write the folder ``path``: scores (safetensors), terms and manifest (JSON).

        An index saved so is replaced. Raises `UserError` if ``path`` is a file, or a folder that holds anything else.
        """
        arrays = {name: np.ascontiguousarray(self._scores.scores[name], dtype) for name, dtype in _ARRAYS.items()}
        manifest = _Manifest(self.base_fingerprint, len(self), self.settings, words=WORDS_VERSION)
        with index_directory(path, (_SCORES, _TERMS, MANIFEST)) as folder:
            save_file(arrays, folder / _SCORES)
            open_to_umask(folder)
            write_json(folder / _TERMS, list(self._terms))  # in the order of their ids
            write_sealed(folder / MANIFEST, record_mapping(manifest))

    @classmethod
    def load(cls, path: Path, *, base_fingerprint: str | None = None) -> LexicalIndex:
        """Load the index of a folder. Raises `UserError` if it belongs to another base, and for a damaged folder."""
        path = find_current_or_backup(path)
        manifest = _read_manifest(path)
        require_same(path, "knowledge base", manifest.base_fingerprint, base_fingerprint)
        terms = read_json(path / _TERMS)
        try:
            arrays = load_file(path / _SCORES)
        except (SafetensorError, OSError) as error:
            raise UserError(f"{path / _SCORES} cannot be read ({error}); copy it again or rebuild the index") from None
        if not isinstance(terms, list) or not _is_sparse_matrix(arrays, len(terms), manifest.rows):
            raise UserError(f"{path}: scores, terms and manifest do not belong together; rebuild the index")
        require_same_words(manifest.words, map(str, terms), str(path))
        settings = manifest.settings
        scores = _bm25s().BM25(k1=settings.k1, b=settings.b, method="lucene", dtype="float32", backend="numpy")
        scores.scores = {**arrays, "num_docs": manifest.rows}
        scores.nonoccurrence_array = None  # only other variants of BM25 score words that a text does not hold
        return cls(scores, {str(term): i for i, term in enumerate(terms)}, settings, manifest.base_fingerprint)

    def _score_rows(self, text: str) -> Float[Tensor, " N"]:
        """Return every row's score: 0 where it shares no word, above 0 elsewhere, because Lucene's idf is positive."""
        ids = [self._terms[word] for word in words(text, self._stop_words) if word in self._terms]
        if not ids:
            return torch.zeros(len(self))
        return torch.from_numpy(np.asarray(self._scores.get_scores_from_ids(ids), dtype=np.float32))


def _bm25s() -> ModuleType:
    require_package("LexicalIndex", "bm25s", "bm25")
    import bm25s

    return bm25s


def _read_manifest(path: Path) -> _Manifest:
    value = read_sealed(path / MANIFEST)
    if value.get("kind") != "bm25":
        raise UserError(f"{path} is not a 'bm25' index; load it with the class that saved it")
    return read_record(_Manifest, value, str(path / MANIFEST))


def _is_sparse_matrix(arrays: dict[str, np.ndarray], terms: int, rows: int) -> bool:
    """Return whether the arrays are a sparse matrix [rows, terms], column by column."""
    if set(arrays) != set(_ARRAYS) or any(arrays[name].dtype != dtype for name, dtype in _ARRAYS.items()):
        return False
    if any(array.ndim != 1 for array in arrays.values()):
        return False
    starts, indices = arrays["indptr"], arrays["indices"]
    return (
        len(starts) == terms + 1
        and bool(starts[0] == 0)
        and bool((np.diff(starts) >= 0).all())
        and bool(starts[-1] == len(indices) == len(arrays["data"]))
        and bool(((indices >= 0) & (indices < rows)).all())
    )
