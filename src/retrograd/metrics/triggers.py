"""Trigger words of relations, learned from labelled sentences, to tell whether a relation is said or only implied.

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

from retrograd.metrics.words import MARKS, space_characters

__all__ = [
    "MINIMUM_PMI",
    "MINIMUM_SENTENCES",
    "MINIMUM_SHARE",
    "MOST",
    "Trigger",
    "context_words",
    "learn_triggers",
    "plain_words",
]

MINIMUM_SENTENCES = 3
MINIMUM_SHARE = 0.02
MINIMUM_PMI = 1.0
MOST = 20

_RUN = rf"[\w{MARKS}]+"
_WORD = re.compile(rf"{_RUN}(?:['’\-]{_RUN})*")
_LETTER = re.compile(r"[^\W\d_]")


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger word, its PMI with the relation in bits, and the sentences of the relation that have it."""

    word: str
    pmi: float
    sentences: int


def plain_words(text: str) -> list[str]:
    """Return runs of letters, marks and digits in order, with inner hyphens and apostrophes, without punctuation.

    Characters of scripts without spaces are words of their own.
    """
    return _WORD.findall(space_characters(text))


def context_words(text: str, *entities: tuple[int, int]) -> frozenset[str]:
    """Return the distinct words of a sentence outside its entities, given as characters [start, end), without case."""
    for start, end in entities:
        text = text[:start] + " " * (end - start) + text[end:]
    return frozenset(word.casefold() for word in plain_words(text) if _LETTER.search(word))


def learn_triggers(
    sentences: Sequence[AbstractSet[str]], relations: Sequence[str], negative: str | None
) -> Mapping[str, tuple[Trigger, ...]]:
    """Return the triggers of every relation but the negative one, best first; a relation may have none.

    ``sentences`` are the `context_words` of each, ``relations`` their labels in the same order.
    """
    relation_counts = Counter(relations)
    word_counts: Counter[str] = Counter()
    joint_counts: dict[str, Counter[str]] = {
        relation: Counter() for relation in relation_counts if relation != negative
    }
    for sentence, relation in zip(sentences, relations, strict=True):
        word_counts.update(sentence)
        if relation != negative:
            joint_counts[relation].update(sentence)
    return {
        relation: _select_triggers(counts, word_counts, relation_counts[relation], len(sentences))
        for relation, counts in sorted(joint_counts.items())
    }


def _select_triggers(
    joint_counts: Counter[str], word_counts: Counter[str], with_relation: int, sentences: int
) -> tuple[Trigger, ...]:
    """Return the triggers of a relation that ``with_relation`` sentences have."""
    enough = max(MINIMUM_SENTENCES, math.ceil(MINIMUM_SHARE * with_relation))
    candidates = [
        Trigger(word, math.log2(count * sentences / (word_counts[word] * with_relation)), count)
        for word, count in joint_counts.items()
        if count >= enough
    ]
    triggers = [trigger for trigger in candidates if trigger.pmi >= MINIMUM_PMI]
    return tuple(sorted(triggers, key=lambda trigger: (-trigger.pmi, -trigger.sentences, trigger.word))[:MOST])
