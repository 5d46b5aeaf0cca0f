"""The tests that need the model: it writes a question and an answer, answers again from the passage, and is scored.

Only drafts that passed the tests before are read on, and every call gets all prompts of a block: the generator forms
its own micro-batches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from retrograd.metrics.answers import token_f1
from retrograd.studies.synthesis.drafts import Draft, find_answer
from retrograd.studies.synthesis.questions import (
    ask,
    ask_for_question,
    find_fault,
    read_answer,
    read_question,
    short_answer,
)
from retrograd.types import Passage

__all__ = ["Model", "QuestionModel", "complete_drafts"]

_WRITTEN_TOKENS = 40
_ANSWER_TOKENS = 16


@runtime_checkable
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
    """Return drafts with their questions and answers, and with a reason where they fail a test.

    ``passages`` holds the passages of the drafts by their ids. A draft costs one text written, one written answer if
    the question can be used, and two scores if the answers agree.
    """
    completed = _write(drafts, passages, model)
    completed = _update(completed, lambda usable: _answer_unanswered(usable, passages, model))
    completed = _update(completed, lambda usable: [_locate(one, passages[one.passage]) for one in usable])
    completed = _update(completed, lambda usable: _read_back(usable, passages, model, min_f1))
    return _update(completed, lambda usable: _measure_gain(usable, passages, model, min_gain))


def _update(drafts: Sequence[Draft], test: Callable[[list[Draft]], list[Draft]]) -> list[Draft]:
    """Replace the drafts that have no reason yet by what ``test`` makes of them."""
    usable = [one for one in drafts if not one.reason]
    tested = iter(test(usable) if usable else ())
    return [one if one.reason else next(tested) for one in drafts]


def _write(drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model) -> list[Draft]:
    """Write questions, and the answers that the model writes behind them."""
    written = _generate(model, [ask_for_question(passages[one.passage], one) for one in drafts], _WRITTEN_TOKENS)
    completed = [
        replace(one, question=read_question(text, one.opening), answer=read_answer(text))
        for one, text in zip(drafts, written, strict=True)
    ]
    return [replace(one, reason=_unless_unanswered(find_fault(one, passages[one.passage]))) for one in completed]


def _unless_unanswered(reason: str) -> str:
    return "" if reason == "no_answer" else reason


def _answer_unanswered(drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model) -> list[Draft]:
    """Answer the questions behind which no answer was written from their sentences: not every model goes on writing."""
    prompts = {
        one.id: ask(one.question, _cut_to_sentence(passages[one.passage], one)) for one in drafts if not one.answer
    }
    answers = dict(zip(prompts, _generate(model, list(prompts.values()), _ANSWER_TOKENS), strict=True))
    return [replace(one, answer=short_answer(answers[one.id])) if one.id in answers else one for one in drafts]


def _cut_to_sentence(passage: Passage, draft: Draft) -> Passage:
    return replace(passage, text=passage.text[draft.sentence_start : draft.sentence_end])


def _locate(draft: Draft, passage: Passage) -> Draft:
    """Give the answer its place in the passage and the spelling that it has there, or the reason why it has none."""
    reason, span = find_fault(draft, passage), find_answer(draft.answer, passage)
    if reason or span is None:
        return replace(draft, reason=reason)
    return replace(draft, answer=" ".join(span.of(passage.text).split()), start=span.start, end=span.end)


def _read_back(drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model, min_f1: float) -> list[Draft]:
    """Answer each question from its whole passage, and compare with the answer that was written with it."""
    readings = _generate(model, [ask(one.question, passages[one.passage]) for one in drafts], _ANSWER_TOKENS)
    read = [replace(one, reading=short_answer(text)) for one, text in zip(drafts, readings, strict=True)]
    scores = [token_f1([one.answer], one.reading or "") for one in read]
    return [
        replace(one, f1=f1, reason="" if f1 >= min_f1 else "round_trip") for one, f1 in zip(read, scores, strict=True)
    ]


def _measure_gain(
    drafts: Sequence[Draft], passages: Mapping[str, Passage], model: Model, min_gain: float
) -> list[Draft]:
    """Compare log p(answer | passage, question) with log p(answer | question)."""
    answers = [f" {one.answer}" for one in drafts]  # as it stands behind "Answer:"
    with torch.no_grad():
        given = model.log_likelihood([ask(one.question, passages[one.passage]) for one in drafts], answers)
        alone = model.log_likelihood([ask(one.question) for one in drafts], answers)
    return [
        replace(
            one,
            log_likelihood=log_given,
            log_likelihood_alone=log_alone,
            reason="" if log_given - log_alone > min_gain else "likelihood_gain",
        )
        for one, log_given, log_alone in zip(drafts, given.tolist(), alone.tolist(), strict=True)
    ]


def _generate(model: Model, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
    """Continue each distinct prompt once."""
    distinct = list(dict.fromkeys(prompts))
    texts = dict(zip(distinct, model.generate(distinct, max_new_tokens) if distinct else (), strict=True))
    return [texts[prompt] for prompt in prompts]
