"""Rules that read a label from a model's answer and never guess; an answer that no rule reads is invalid.

In this order: the words of one label and nothing else, but for case and spaces (``exact``), but for punctuation too
(``punctuation``), or behind the last colon (``after colon``: "Relation: …"); then the words of one label of two words
or more somewhere within the answer (``contained``). Words that stand inside those of another label are not counted, so
"part of whole reversed" is never read as "part of whole". A single word within a sentence ("the other relation") is no
answer, nor is what the example's own sentence says ("also called"): the answer may quote it.

The last two rules read nothing (``ambiguous``) where the answer has another label anywhere, one of a single word too;
a word that denies, excludes or turns round ("not", "rather", "reverse"); a further word of a longer label ("member of
the board" is not "member of" where "member of board" is a label); or, around the label, the tail before it and the head
behind it, which says it of the tail. So lists of relations, answers that go on to a next question, and second thoughts
are invalid.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ReadingRule", "Refined", "refine_answer"]

ReadingRule = Literal["exact", "punctuation", "after colon", "contained", "ambiguous", "nothing"]

_DENYING_WORDS = """
not no never neither nor none nothing nobody non cannot without hardly barely unlikely wrong incorrect false fails
rather instead except excluding excluded rejected unlike than converse vice
isnt arent wasnt werent doesnt dont didnt cant wont couldnt wouldnt hasnt havent
"""
_DENYING = frozenset(_DENYING_WORDS.split())
_TURNING = ("revers", "invers", "invert", "opposit", "backward")
_SIGNS = str.maketrans(dict.fromkeys("¬≠✗✘❌", " not ") | dict.fromkeys("’‘ʼ`´′", "'"))
_LEAST_WORDS = 2

_Words = tuple[str, ...]
_Texts = Sequence[tuple[str, _Words]]
"""Labels and their words; a label may have several texts."""


@dataclass(frozen=True)
class Refined:
    """A label, or None for an invalid answer, and the rule that gave it."""

    label: str | None
    rule: ReadingRule

    @property
    def is_exact(self) -> bool:
        """Return whether the answer was the label's words as they are."""
        return self.rule == "exact"


@dataclass(frozen=True)
class _Mention:
    """A label whose words are the words ``[start, end)`` of an answer."""

    label: str
    start: int
    end: int

    def inside(self, other: _Mention) -> bool:
        return other.start <= self.start and self.end <= other.end and other.end - other.start > self.end - self.start


def refine_answer(
    answer: str, phrases: Mapping[str, Iterable[str]], sentence: str = "", head: str = "", tail: str = ""
) -> Refined:
    """Return the label that ``answer`` names, by the module's rules but for "exact"; ``phrases`` are the words of each.

    ``sentence`` is what the answer may quote, ``head`` and ``tail`` are the entities it is about.
    """
    texts = [(label, words) for label, phrase in phrases.items() for words in map(_words, phrase) if words]
    tokens = _words(answer)
    alone = _label_of(tokens, texts)
    if alone is not None:
        return Refined(alone, "punctuation")
    mentions = _mentions(tokens, texts)
    behind = _label_of(_words(_levelled(answer).rpartition(":")[2]), texts)
    if behind is not None and _is_unambiguous(behind, mentions, tokens, texts):
        return Refined(behind, "after colon")
    quoted = _words(sentence)
    unquoted = [
        mention
        for mention in mentions
        if mention.end - mention.start >= _LEAST_WORDS and not _places(tokens[mention.start : mention.end], quoted)
    ]
    if not unquoted:
        return Refined(None, "nothing")
    label = unquoted[0].label
    is_reversed = any(_is_reversed(mention, tokens, _words(head), _words(tail)) for mention in unquoted)
    if is_reversed or not _is_unambiguous(label, mentions, tokens, texts):
        return Refined(None, "ambiguous")
    return Refined(label, "contained")


def _label_of(tokens: _Words, texts: _Texts) -> str | None:
    """Return the only label whose words these are, all of them."""
    labels = {label for label, words in texts if words == tokens}
    return labels.pop() if len(labels) == 1 else None


def _mentions(tokens: _Words, texts: _Texts) -> list[_Mention]:
    """Return every label in the answer, but for those inside a longer one."""
    mentions = [
        _Mention(label, start, start + len(words)) for label, words in texts for start in _places(words, tokens)
    ]
    return [mention for mention in mentions if not any(mention.inside(other) for other in mentions)]


def _is_unambiguous(label: str, mentions: Sequence[_Mention], tokens: _Words, texts: _Texts) -> bool:
    """Return whether no other label is mentioned, and no word beside them denies or belongs to a longer label."""
    if any(mention.label != label for mention in mentions):
        return False
    covered = {place for mention in mentions for place in range(mention.start, mention.end)}
    mentioned_texts = {tokens[mention.start : mention.end] for mention in mentions}
    other_texts = [words for other, words in texts if other != label]
    longer = {
        word
        for words in other_texts
        for mentioned in mentioned_texts
        if _places(mentioned, words)
        for word in set(words) - set(mentioned)
    }
    return not any(_denies(word) or word in longer for place, word in enumerate(tokens) if place not in covered)


def _is_reversed(mention: _Mention, tokens: _Words, head: _Words, tail: _Words) -> bool:
    """Return whether the answer names the tail alone before the label, and the head behind it."""
    before, after = tokens[: mention.start], tokens[mention.end :]
    return bool(_places(tail, before) and _places(head, after)) and not _places(head, before)


def _places(words: _Words, text: _Words) -> list[int]:
    """Return where these words appear in a row, by the first of them; nowhere for no words."""
    return [i for i in range(len(text) - len(words) + 1) if text[i : i + len(words)] == words] if words else []


def _denies(word: str) -> bool:
    return word in _DENYING or word.endswith("n't") or word.startswith(_TURNING)


def _levelled(text: str) -> str:
    return unicodedata.normalize("NFKC", text.translate(_SIGNS)).casefold()


def _words(text: str) -> _Words:
    """Return runs of letters, their marks and digits, apostrophes inside them included; invisible signs are dropped."""
    kinds = [(sign, unicodedata.category(sign)) for sign in _levelled(text)]
    spaced = "".join(sign if kind[0] in "LMN" or sign == "'" else " " for sign, kind in kinds if kind != "Cf")
    return tuple(word for word in (run.strip("'") for run in spaced.split()) if word)
