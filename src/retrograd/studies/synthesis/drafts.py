"""Drafts of questions with answers: the sentences that are asked about, and the record of what became of each.

Names, dates and numbers show which sentences say something that can be asked for in few words.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

from retrograd.data.masking import salient_spans
from retrograd.data.sentences import sentence_spans
from retrograd.metrics.words import cuts_word, words_and_signs, words_without_signs
from retrograd.tasks.text_index import has_answer
from retrograd.types import Passage, Span
from retrograd.util.guards import JsonObject
from retrograd.util.records import record_mapping

__all__ = ["REASONS", "Draft", "choose_sentences", "find_answer", "is_of_kind", "is_short", "opening"]

REASONS = {
    "no_question_mark": "what was written does not end as a question",
    "too_short": "the question has fewer than 4 words",
    "too_long": "the question has more than 30 words",
    "copies_passage": "the question is a piece of the passage",
    "no_answer": "no answer was written, or one of more than 8 words",
    "contains_answer": "the question contains its answer",
    "other_kind": "the question was begun for a date and answered with a number, or the other way round",
    "answer_not_found": "the answer does not stand in the passage, or stands in its title",
    "round_trip": "read from the whole passage, the model gives another answer",
    "likelihood_gain": "the passage makes the answer no more likely",
    "common_answer": "the answer stands in too many other passages",
    "near_duplicate": "an earlier question has nearly the same words",
}
"""Why a draft is left out, in the order of the tests: a draft has the first reason that applies."""

_LEAST_SENTENCE = 6  # words: a shorter sentence says too little to ask for a part of it
_LONGEST_ANSWER = 8  # words
_DIGIT = re.compile(r"\d")
_SPACE = r"\s+"
_OPENINGS = (
    ("In what year", re.compile(r"\d{4}")),
    ("What percentage", re.compile(r"[\d.,]+ ?(?:%|per ?cent)")),
    ("How much", re.compile(r"[$€£¥].*")),
    ("How many", re.compile(r"[\d.,]+(?: (?:thousand|million|billion|trillion))?")),
    ("When", re.compile(r"\d.*|[A-Z][a-z]+\.? \d.*")),
)
_FOR_DATES = {"In what year", "When"}


@dataclass(frozen=True)
class Draft:
    """A question about the sentence at characters [sentence_start, sentence_end) of a passage, and what tests found.

    ``opening`` is how the question was begun for the model. ``start`` and ``end`` are the characters of the answer in
    the passage. ``reading`` is what the model answers when it reads the whole passage, ``f1`` its token F1 with the
    answer, ``log_likelihood`` and ``log_likelihood_alone`` are log p(answer | question) in nats with and without the
    passage, ``others`` is the number of other passages in which the answer stands. What was not tested is None.
    ``reason`` is a key of `REASONS`; "" is a draft that is kept.
    """

    id: str
    passage: str
    sentence_start: int
    sentence_end: int
    opening: str
    question: str = ""
    answer: str = ""
    start: int | None = None
    end: int | None = None
    reading: str | None = None
    f1: float | None = None
    log_likelihood: float | None = None
    log_likelihood_alone: float | None = None
    others: int | None = None
    reason: str = ""

    def record(self) -> JsonObject:
        """Return the draft as a line of JSON."""
        return record_mapping(self)


def choose_sentences(passage: Passage, count: int, seed: int) -> list[Draft]:
    """Return at most ``count`` drafts without a question: sentences with a name, a date or a number, drawn by ``seed``.

    A sentence has at least 6 words beside that, which the title does not hold. One may be drawn twice, to be asked
    about a date and about a name. Sentences in which only single words without a digit were found come last: many of
    these are no names. What is drawn of a passage depends on its id and on ``seed`` alone. Ids are ``passage:number``.
    """
    text = passage.text
    weak: dict[tuple[Span, str], bool] = {}
    for start, end in salient_spans(text):
        said = text[start:end]
        words = words_without_signs(said)
        sentence = _sentence_around(text, Span(start, end))
        if sentence is None or has_answer([said], passage.title):
            continue
        if len(words_without_signs(sentence.of(text))) - len(words) >= _LEAST_SENTENCE:
            place = sentence, opening(said)
            weak[place] = weak.get(place, True) and len(words) == 1 and not _DIGIT.search(said)
    places = list(weak)
    random.Random(f"{seed} {passage.id}").shuffle(places)
    drawn = sorted(sorted(places, key=lambda place: weak[place])[:count], key=lambda one: (one[0].start, one[1]))
    return [
        Draft(f"{passage.id}:{number}", passage.id, sentence.start, sentence.end, begun)
        for number, (sentence, begun) in enumerate(drawn)
    ]


def opening(said: str) -> str:
    """Return how a question for a date or a number begins, "" for a name.

    A small model asks who did something, whatever the sentence says.
    """
    return next((words for words, pattern in _OPENINGS if pattern.fullmatch(said)), "")


def is_of_kind(begun: str, answer: str) -> bool:
    """Return whether an answer may belong to a question that begins so: a date to a date, a number to a number."""
    kinds = {begun, opening(answer)} - {""}
    return kinds <= _FOR_DATES or not kinds & _FOR_DATES


def find_answer(answer: str, passage: Passage) -> Span | None:
    """Return the first place of an answer in the text of a passage, whole words without regard to case.

    None where there is none, and where the title holds it: a question has to name what the passage is about.
    """
    # "2 million" is no part of "1.2 million", nor "3" of "3,200".
    pattern = rf"(?<!\d[.,]){_SPACE.join(map(re.escape, answer.split()))}(?![.,]\d)"
    if not words_and_signs(answer) or has_answer([answer], passage.title):
        return None
    for match in re.finditer(pattern, passage.text, re.IGNORECASE):
        if not any(cuts_word(passage.text, place) for place in match.span()):
            return Span(*match.span())
    return None


def is_short(answer: str) -> bool:
    """Return whether an answer has between one and 8 words."""
    return 1 <= len(words_without_signs(answer)) <= _LONGEST_ANSWER


def _sentence_around(text: str, span: Span) -> Span | None:
    return next((Span(a, b) for a, b in sentence_spans(text) if a <= span.start and span.end <= b), None)
