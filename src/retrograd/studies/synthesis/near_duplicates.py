"""Questions with nearly the same words: the Jaccard overlap of their sets of words."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

from retrograd.metrics.words import words

__all__ = ["near_duplicates"]


def near_duplicates(texts: Sequence[str], most_overlap: float) -> list[bool]:
    """Return for each text whether an earlier one that is none itself has nearly the same set of words.

    Nearly: |A ∩ B| / |A ∪ B| > t, where t is ``most_overlap``. Two such sets have one of the first |A| - ⌈t|A|⌉ + 1
    words of each in common, in any one order of all words (Bayardo, Ma and Srikant 2007, "Scaling Up All Pairs
    Similarity Search", after Chaudhuri et al. 2006): with the rarest first, few pairs are ever compared.
    """
    sets = [frozenset(words(text)) for text in texts]
    frequency = Counter(word for one in sets for word in one)
    kept_with: defaultdict[str, list[int]] = defaultdict(list)
    is_duplicate: list[bool] = []
    for row, own in enumerate(sets):
        ordered = sorted(own, key=lambda word: (frequency[word], word))
        prefix = ordered[: len(own) - math.ceil(most_overlap * len(own)) + 1]
        rivals = {other for word in prefix for other in kept_with[word]}
        is_duplicate.append(any(_overlap(own, sets[other]) > most_overlap for other in rivals))
        if not is_duplicate[-1]:
            for word in prefix:
                kept_with[word].append(row)
    return is_duplicate


def _overlap(first: frozenset[str], second: frozenset[str]) -> float:
    return len(first & second) / len(first | second)
