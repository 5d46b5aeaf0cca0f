"""Words that give a relation away, learned from labelled sentences: is a relation said or only implied?

A *trigger* of a relation is a word that stands in its sentences more often than chance, by pointwise mutual information
(Church & Hanks 1990) between "the sentence has the word" and "the sentence has the relation", both counted once a
sentence:

    pmi(word, relation) = log2( n(word, relation) · N / (n(word) · n(relation)) )   in bits

N counts all sentences, those of the negative label too: they are what chance looks like. A word is a trigger if

* it stands in at least `MINIMUM_SENTENCES` sentences of the relation, and in at least `MINIMUM_SHARE` of them (without
  the second rule words that were seen three times crowd out those that matter: PMI is largest for rare words),
* its PMI is at least `MINIMUM_PMI` bits, so that beside the word the relation is at least twice as probable as over all
* it is among the relation's `MOST` best by PMI; ties go to the more frequent, then to the alphabet.

Words are compared without case; what stands inside the two entities does not count, nor do numbers.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

__all__ = [
    "MINIMUM_PMI",
    "MINIMUM_SENTENCES",
    "MINIMUM_SHARE",
    "MOST",
    "Trigger",
    "context_words",
    "learn_triggers",
    "words",
]

MINIMUM_SENTENCES = 3
MINIMUM_SHARE = 0.02
MINIMUM_PMI = 1.0
MOST = 20

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A word, its PMI with the relation in bits, and the sentences of the relation that have it."""

    word: str
    pmi: float
    sentences: int


def words(text: str) -> list[str]:
    """Runs of letters and digits in order, with hyphens and apostrophes inside; punctuation is no word."""
    return _WORD.findall(text)


def context_words(text: str, *entities: tuple[int, int]) -> frozenset[str]:
    """The distinct words of a sentence outside its entities, given as characters [start, end), without case."""
    for start, end in entities:
        text = text[:start] + " " * (end - start) + text[end:]
    return frozenset(word.casefold() for word in words(text) if _LETTER.search(word))


def learn_triggers(
    sentences: Sequence[AbstractSet[str]], relations: Sequence[str], negative: str | None
) -> Mapping[str, tuple[Trigger, ...]]:
    """Triggers of every relation but the negative one, best first; a relation may have none.

    ``sentences`` are the `context_words` of each, ``relations`` their labels in the same order.
    """
    bearing = Counter(relations)
    having: Counter[str] = Counter()
    together: dict[str, Counter[str]] = {relation: Counter() for relation in bearing if relation != negative}
    for sentence, relation in zip(sentences, relations, strict=True):
        having.update(sentence)
        if relation != negative:
            together[relation].update(sentence)
    return {
        relation: _best(found, having, bearing[relation], len(sentences))
        for relation, found in sorted(together.items())
    }


def _best(found: Counter[str], having: Counter[str], bearing: int, sentences: int) -> tuple[Trigger, ...]:
    """The triggers of one relation, which ``bearing`` sentences bear."""
    enough = max(MINIMUM_SENTENCES, math.ceil(MINIMUM_SHARE * bearing))
    known = [
        Trigger(word, math.log2(count * sentences / (having[word] * bearing)), count)
        for word, count in found.items()
        if count >= enough
    ]
    good = [trigger for trigger in known if trigger.pmi >= MINIMUM_PMI]
    return tuple(sorted(good, key=lambda one: (-one.pmi, -one.sentences, one.word))[:MOST])
