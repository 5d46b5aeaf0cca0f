"""Drafts of questions with answers: which words of a passage can be an answer, and the record of what became of each.

The answer is chosen before its question is written, as in Alberti et al. 2019, "Synthetic QA Corpora Generation with
Roundtrip Consistency" (arXiv 1906.05416): a small model writes a fair question for a given answer far more often than a
fair pair from nothing.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from retrograd.data.masking import salient_spans
from retrograd.data.sentences import sentence_spans
from retrograd.metrics.words import words_and_signs, words_without_signs
from retrograd.tasks.text_index import has_answer
from retrograd.types import Passage, Span
from retrograd.util.guards import JsonObject
from retrograd.util.records import record_mapping

__all__ = ["REASONS", "Draft", "answer_spans", "choose_spans", "sentence_around"]

REASONS = {
    "no_question_mark": "what was written does not end as a question",
    "too_short": "the question has fewer than 4 words",
    "too_long": "the question has more than 30 words",
    "contains_answer": "the question contains its answer",
    "copies_passage": "the question is a piece of the passage",
    "round_trip": "read from its passage, the model does not give the answer back",
    "likelihood_gain": "the passage makes the answer no more likely",
    "near_duplicate": "an earlier question has nearly the same words",
}
"""Why a draft is left out, in the order of the tests: a draft has the first reason that applies."""

_LEAST_SENTENCE = 6  # words: a shorter sentence says too little to ask for a part of it
_LONGEST_ANSWER = 8  # words


@dataclass(frozen=True)
class Draft:
    """A question for an answer that stands at characters [start, end) of a passage, and what the tests found.

    ``reason`` is a key of `REASONS`; "" is a draft that is kept. ``others`` is the number of other passages in which
    the answer stands, ``reading`` what the model answers when it reads the passage, ``f1`` the token F1 of that with
    the answer, ``log_likelihood`` and ``log_likelihood_alone`` log p(answer | question) in nats with and without the
    passage. What no test has found out is None.
    """

    passage: str
    start: int
    end: int
    answer: str
    others: int
    question: str = ""
    reason: str = ""
    reading: str | None = None
    f1: float | None = None
    log_likelihood: float | None = None
    log_likelihood_alone: float | None = None

    @property
    def id(self) -> str:
        """Return the id of the pair: ``passage:start-end``."""
        return f"{self.passage}:{self.start}-{self.end}"

    def record(self) -> JsonObject:
        """Return the draft as a line of JSON."""
        return record_mapping(self)


def answer_spans(passage: Passage) -> list[Span]:
    """Return the spans of a passage that can be answers: names, dates and numbers (`salient_spans`), each text once.

    An answer has at most 8 words and lies in one sentence of at least 6 words, of which it is a part. The title does
    not hold it: a question has to name what the passage is about.
    """
    text = passage.text
    spans: dict[str, Span] = {}
    for start, end in salient_spans(text):
        span = Span(start, end)
        words = words_without_signs(span.of(text))
        sentence = sentence_around(text, span)
        if sentence is None or not 1 <= len(words) <= _LONGEST_ANSWER:
            continue
        others = len(words_without_signs(sentence.of(text))) - len(words)
        if others >= _LEAST_SENTENCE - 1 and not has_answer([span.of(text)], passage.title):
            spans.setdefault(" ".join(words_and_signs(span.of(text))), span)
    return list(spans.values())


def choose_spans(
    passage: Passage, passages_with: Mapping[str, int], most_others: int, count: int, seed: int
) -> list[Draft]:
    """Return at most ``count`` drafts without a question, drawn from the answers that stand in at most ``most_others``
    other passages.

    ``passages_with`` is the number of passages in which each answer stands. What is drawn of a passage depends on its
    id and on ``seed`` alone.
    """
    drafts = [
        Draft(passage.id, span.start, span.end, " ".join(span.of(passage.text).split()), others)
        for span in answer_spans(passage)
        if (others := passages_with[span.of(passage.text)] - 1) <= most_others
    ]
    rng = random.Random(f"{seed} {passage.id}")
    return sorted(rng.sample(drafts, min(count, len(drafts))), key=lambda draft: draft.start)


def sentence_around(text: str, span: Span) -> Span | None:
    """Return the sentence that a span lies in; None where it lies in no single one."""
    return next((Span(a, b) for a, b in sentence_spans(text) if a <= span.start and span.end <= b), None)
