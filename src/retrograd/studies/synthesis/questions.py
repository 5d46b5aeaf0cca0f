"""How a model is asked for a question with its answer, and what makes a question unusable before it is asked."""

from __future__ import annotations

import re
from functools import cache
from typing import NamedTuple

from retrograd.metrics.words import words_without_signs
from retrograd.studies.synthesis.drafts import Draft, find_answer, is_of_kind, is_short
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.text_index import has_answer
from retrograd.types import Example, Passage, Prompt

__all__ = ["PROMPT_VERSION", "ask", "ask_for_question", "find_fault", "read_answer", "read_question", "short_answer"]

PROMPT_VERSION = 1
"""Counts the wordings of all that the model reads; pairs keep it."""

_FEWEST_WORDS, _MOST_WORDS = 4, 30
_MOST_SHOWN = 400
"""The characters of a sentence that are shown."""
_MARKS = "?？؟"
_QUESTION_END = re.compile(f"[{_MARKS}]")
_AROUND_ANSWER = " \t.,;:!\"'“”‘’"


class _Shot(NamedTuple):
    """A case that is shown to the model: it continues what it has seen done."""

    title: str
    text: str
    question: str
    answer: str


_SHOTS = (
    _Shot(
        "Station kitchen",
        "The kettle was bought by Maria Olsen in 1987, when the old one broke.",
        "Who bought the kettle of the station kitchen?",
        "Maria Olsen",
    ),
    _Shot(
        "Harbour Bridge",
        "The bridge is 412 metres long and was opened to traffic in 1931.",
        "In what year was the Harbour Bridge opened to traffic?",
        "1931",
    ),
    _Shot(
        "Green Cup",
        "In the final the club beat Ostfeld by four goals.",
        "Which club was beaten by four goals in the final of the Green Cup?",
        "Ostfeld",
    ),
)
_WRITE = "Each question can be answered with a few words of the text."
_READ = "Each question is answered in as few words as possible."


def ask_for_question(passage: Passage, draft: Draft) -> Prompt:
    """Return a text that a model continues with a question about the draft's sentence, and with its answer.

    It shows the title and the sentence alone: what is short is read well by a small model, and the title names what the
    sentence speaks of. Where a model has no room for all of it, the cases go first.
    """
    sentence = " ".join(passage.text[draft.sentence_start : draft.sentence_end].split())
    if len(sentence) > _MOST_SHOWN:
        sentence = sentence[:_MOST_SHOWN].rpartition(" ")[0] or sentence[:_MOST_SHOWN]
    shots = [f"{_show(one.title, one.text)}Question: {one.question}\nAnswer: {one.answer}" for one in _SHOTS]
    own = f"{_show(passage.title, sentence)}Question: {draft.opening}".rstrip()
    return Prompt(_WRITE, "".join(f"\n\n{shot}" for shot in shots), f"\n\n{own}")


def _show(title: str, text: str) -> str:
    return f"Topic: {title}\nText: {text}\n" if title else f"Text: {text}\n"


def ask(question: str, *passages: Passage) -> Prompt:
    """Return a question as the task of question answering asks it, behind cases that show how short an answer is."""
    return _task_with_shots(bool(passages)).prompt(Example("", question), passages)


@cache
def _task_with_shots(with_passages: bool) -> QuestionAnswering:
    """Return the task whose instruction shows the cases, with their passages or without."""
    plain = QuestionAnswering(instruction="")
    shots = [
        f"{plain.prompt(Example('', one.question), [Passage('', one.title, one.text)] if with_passages else ())} "
        f"{one.answer}\n"
        for one in _SHOTS
    ]
    return QuestionAnswering(instruction="\n".join([f"{_READ}\n", *shots]))


def read_question(written: str, begun: str = "") -> str:
    """Return the first line of what was written behind what was ``begun``, up to its question mark; all of the line
    where it has none."""
    line = " ".join(f"{begun} {_first_line(written).removeprefix('Question:')}".split())
    mark = _QUESTION_END.search(line)
    return line if mark is None else line[: mark.end()]


def read_answer(written: str) -> str:
    """Return the answer that was written behind a question; "" where there is none."""
    answer = re.search(r"\bAnswer:(.*)", written)
    return "" if answer is None else short_answer(answer[1])


def short_answer(text: str) -> str:
    """Return the first line that is not blank, without the signs around it."""
    return _first_line(text).strip(_AROUND_ANSWER)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0]


def find_fault(draft: Draft, passage: Passage) -> str:
    """Return the first reason of `REASONS` for which a draft is of no use as it is written; "" where there is none."""
    question = draft.question
    count = len(words_without_signs(question))
    faults = {
        "no_question_mark": not question.endswith(tuple(_MARKS)),
        "too_short": count < _FEWEST_WORDS,
        "too_long": count > _MOST_WORDS,
        "copies_passage": has_answer([question.rstrip(f"{_MARKS} ")], passage.text),
        "no_answer": not is_short(draft.answer),
        "contains_answer": has_answer([draft.answer], question),
        "other_kind": not is_of_kind(draft.opening, draft.answer),
        "answer_not_found": find_answer(draft.answer, passage) is None,
    }
    return next((reason for reason, applies in faults.items() if applies), "")
