"""How a model is asked for a question, and what makes a question unusable whatever its answer is."""

from __future__ import annotations

import re
from typing import NamedTuple

from retrograd.metrics.words import words_without_signs
from retrograd.studies.synthesis.drafts import Draft, sentence_around
from retrograd.tasks.text_index import has_answer
from retrograd.types import Passage, Span

__all__ = ["PROMPT_VERSION", "SHOTS", "Shot", "ask_for_question", "find_fault", "opening", "read_question"]

PROMPT_VERSION = 1
"""Counts the wordings of all that the model reads; pairs keep it."""

_FEWEST_WORDS, _MOST_WORDS = 4, 30
_MOST_CONTEXT = 300
"""The characters of a sentence that are shown on either side of an answer."""

_GAP = "____"
_INSTRUCTION = "Each question asks for the missing part of a statement."


class Shot(NamedTuple):
    """A case that is shown to the model: a passage, an answer in it, and the question."""

    title: str
    text: str
    answer: str
    question: str


SHOTS = (
    Shot(
        "Station kitchen",
        "The kettle was bought by Maria Olsen in 1987, when the old one broke.",
        "Maria Olsen",
        "Who bought the kettle of the station kitchen?",
    ),
    Shot(
        "Harbour Bridge",
        "The bridge is 412 metres long and was opened to traffic in May 1931.",
        "May 1931",
        "When was the Harbour Bridge opened to traffic?",
    ),
    Shot(
        "Lake Orvin",
        "Some 3,200 people live around the lake, most of them in Sandvik.",
        "3,200",
        "How many people live around Lake Orvin?",
    ),
    Shot(
        "Green Cup",
        "In the final the club beat Ostfeld by four goals.",
        "Ostfeld",
        "Which club was beaten by four goals in the final of the Green Cup?",
    ),
)
"""Cases that are shown before the one in question: a model continues what it has seen done."""

_OPENINGS = (
    ("In what year", re.compile(r"\d{4}")),
    ("What percentage", re.compile(r"[\d.,]+ ?(?:%|per ?cent)")),
    ("How much", re.compile(r"[$€£¥].*")),
    ("How many", re.compile(r"[\d.,]+(?: (?:thousand|million|billion|trillion))?")),
    ("When", re.compile(r"\d.*|[A-Z][a-z]+\.? \d.*")),
)
"""How questions for dates and numbers begin; a small model asks for a name whatever is missing."""


def ask_for_question(passage: Passage, draft: Draft) -> str:
    """Return a text that a model continues with a question for the draft's answer.

    It shows the title and the sentence with a gap in the place of the answer: short enough for a small model, and what
    the sentence leaves out (of which bridge it speaks) stands in the title.
    """
    sentence = sentence_around(passage.text, Span(draft.start, draft.end)) or Span(0, len(passage.text))
    before = _last_words(passage.text[sentence.start : draft.start])
    after = _first_words(passage.text[draft.end : sentence.end])
    statement = " ".join(f"{before}{_GAP}{after}".split())
    shots = [_write_case(one.title, one.text.replace(one.answer, _GAP), one.answer, one.question) for one in SHOTS]
    return "\n\n".join(
        [_INSTRUCTION, *shots, _write_case(passage.title, statement, draft.answer, opening(draft.answer))]
    )


def _write_case(title: str, statement: str, answer: str, question: str) -> str:
    topic = f"Topic: {title}\n" if title else ""
    return f"{topic}Statement: {statement}\nMissing: {answer}\nQuestion: {question}".rstrip()


def opening(answer: str) -> str:
    """Return how a question for an answer begins: by its kind for dates and numbers, "" for names."""
    return next((words for words, pattern in _OPENINGS if pattern.fullmatch(answer)), "")


def _last_words(text: str) -> str:
    """Return the end of a text, from a space on where it was cut."""
    return text if len(text) <= _MOST_CONTEXT else text[-_MOST_CONTEXT:].partition(" ")[2] or text[-_MOST_CONTEXT:]


def _first_words(text: str) -> str:
    """Return the beginning of a text, up to a space where it was cut."""
    return text if len(text) <= _MOST_CONTEXT else text[:_MOST_CONTEXT].rpartition(" ")[0] or text[:_MOST_CONTEXT]


def read_question(written: str, begun: str = "") -> str:
    """Return the first line of what was written behind what was ``begun``, up to its question mark; all of the line
    where it has none."""
    lines = written.strip().splitlines() or [""]
    line = " ".join(f"{begun} {lines[0].removeprefix('Question:')}".split())
    marks = [place for mark in "?？؟" if (place := line.find(mark)) >= 0]
    return line[: min(marks) + 1] if marks else line


def find_fault(draft: Draft, passage: Passage) -> str:
    """Return the first reason of `REASONS` for which a question is of no use; "" where its words are no obstacle."""
    question = draft.question
    count = len(words_without_signs(question))
    faults = {
        "no_question_mark": not question.endswith(("?", "？", "؟")),
        "too_short": count < _FEWEST_WORDS,
        "too_long": count > _MOST_WORDS,
        "contains_answer": has_answer([draft.answer], question),
        "copies_passage": has_answer([question.rstrip("?？؟ ")], passage.text),
    }
    return next((reason for reason, applies in faults.items() if applies), "")
