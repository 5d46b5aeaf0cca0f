"""The tests that need the model: it writes questions, answers them from their passages, and scores the answers.

Only drafts that passed the tests before are read on, and every call gets all prompts of a block: the generator forms
its own micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from retrograd.metrics.answers import token_f1
from retrograd.studies.synthesis.drafts import Draft
from retrograd.studies.synthesis.questions import SHOTS, ask_for_question, find_fault, opening, read_question
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.types import Example, Passage

__all__ = ["Model", "QuestionModel", "complete_drafts"]

_QUESTION_TOKENS = 40
_ANSWER_TOKENS = 16
_INSTRUCTION = "Each question is answered in as few words as possible."


class Model(Protocol):
    """A model that continues prompts and scores targets after them, in nats: `Generator`, or a rule in a test."""

    def generate(self, prompts: Sequence[str], max_new_tokens: int | None = None) -> list[str]: ...

    def log_likelihood(self, prompts: Sequence[str], targets: Sequence[str]) -> Tensor: ...


@dataclass(frozen=True)
class QuestionModel:
    """A model with its ``name`` and ``fingerprint``, which the pairs keep."""

    name: str
    fingerprint: str
    model: Model


def complete_drafts(
    drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model, min_f1: float, min_gain: float
) -> list[Draft]:
    """Return drafts with their questions, and with a reason where the question or its answer fails a test.

    ``passages`` holds the passages of the drafts by their ids. A draft costs one text written, one written answer if
    the question can be used, and two scores if the answer is right.
    """
    written = model.generate([ask_for_question(passages[one.passage], one) for one in drafts], _QUESTION_TOKENS)
    completed = [
        replace(one, question=read_question(text, opening(one.answer)))
        for one, text in zip(drafts, written, strict=True)
    ]
    completed = [replace(one, reason=find_fault(one, passages[one.passage])) for one in completed]
    completed = _update(completed, lambda usable: _read_back(usable, passages, model, min_f1))
    return _update(completed, lambda usable: _measure_gain(usable, passages, model, min_gain))


def _read_back(drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model, min_f1: float) -> list[Draft]:
    """Answer each question from its passage, and compare with the answer it was written for."""
    prompts = [_question_prompt(one, passages[one.passage]) for one in drafts]
    distinct = list(dict.fromkeys(prompts))  # two answers of a passage may have been given the same question
    readings = dict(zip(distinct, map(_first_line, model.generate(distinct, _ANSWER_TOKENS)), strict=True))
    compared = [replace(one, reading=readings[prompt]) for one, prompt in zip(drafts, prompts, strict=True)]
    scored = [replace(one, f1=token_f1([one.answer], one.reading or "")) for one in compared]
    return [replace(one, reason="" if (one.f1 or 0.0) >= min_f1 else "round_trip") for one in scored]


def _measure_gain(
    drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model, min_gain: float
) -> list[Draft]:
    """Compare log p(answer | passage, question) with log p(answer | question)."""
    answers = [one.answer for one in drafts]
    with torch.no_grad():
        given = model.log_likelihood([_question_prompt(one, passages[one.passage]) for one in drafts], answers)
        alone = model.log_likelihood([_question_prompt(one) for one in drafts], answers)
    return [
        replace(
            one,
            log_likelihood=log_given,
            log_likelihood_alone=log_alone,
            reason="" if log_given - log_alone > min_gain else "likelihood_gain",
        )
        for one, log_given, log_alone in zip(drafts, given.tolist(), alone.tolist(), strict=True)
    ]


def _update(drafts: Sequence[Draft], test: Callable[[list[Draft]], list[Draft]]) -> list[Draft]:
    """Replace the drafts that have no reason yet by what ``test`` makes of them, in place."""
    usable = [one for one in drafts if not one.reason]
    tested = iter(test(usable) if usable else ())
    return [one if one.reason else next(tested) for one in drafts]


def _question_prompt(draft: Draft, *passages: Passage) -> str:
    """Return a question as the task of question answering asks it, behind cases that show how short an answer is."""
    task = QuestionAnswering(instruction="")
    shots = [
        task.prompt(Example("", one.question), [Passage("", one.title, one.text)] if passages else [])
        + f" {one.answer}\n"
        for one in SHOTS
    ]
    with_shots = QuestionAnswering(instruction="\n".join([f"{_INSTRUCTION}\n", *shots]))
    return with_shots.prompt(Example(draft.id, draft.question), passages)


def _first_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[0].strip()
