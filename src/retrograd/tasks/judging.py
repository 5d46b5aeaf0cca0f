"""Judge single answers: how right each is, and whether it only says that there is no answer.

Official scores are of a corpus, and some are not means over its examples (macro-F1, BLEU). What is said of one answer
and its confidence needs a number for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from retrograd.data.relations.instance import has_unseen_label
from retrograd.data.squad import NO_ANSWER
from retrograd.metrics.answers import normalise_answer
from retrograd.metrics.resampling import item_scores
from retrograd.tasks.answer_scores import ANSWER_METRICS
from retrograd.tasks.task import Task
from retrograd.types import Example

__all__ = ["Judgements", "cannot_answer", "judge_answers"]

_GRADED_INSTEAD = {"bleu_1": "f1", "bleu_4": "f1"}
"""What grades one answer where the primary metric is of a corpus alone."""
_LABEL = "relation"


@dataclass(frozen=True)
class Judgements:
    """The judgements of single answers: the ``correctness`` of each in [0, 1], by ``metric``.

    ``is_answer`` is false for an answer that says that there is none.
    """

    metric: str
    correctness: list[float]
    is_answer: list[bool]


def cannot_answer(task: Task, example: Example) -> str:
    """Return the task's words for no answer ("no relation", "cannot answer"); where it has none, `NO_ANSWER`."""
    return task.negative_for(example) or NO_ANSWER


def judge_answers(task: Task, examples: Sequence[Example], answers: Sequence[str]) -> Judgements:
    """Judge each answer by itself.

    With a closed set of answers it is right (1) if it names the label of the target, else wrong (0): ``metric`` is
    "accuracy". No answer names an unseen label. Free answers are judged by the task's primary metric, BLEU's by token
    F1, and those of a task whose metric is not one of `ANSWER_METRICS` by exact match. Raises `UserError` for an
    example without a target.
    """
    refusals = [cannot_answer(task, example) for example in examples]
    if task.choices is not None:
        laid_out = list(zip(examples, answers, refusals, strict=True))
        right = [
            float(not has_unseen_label(example) and _names_same(task, example, answer, example.target))
            for example, answer, _ in laid_out
        ]
        is_answer = [not _names_same(task, example, answer, refusal) for example, answer, refusal in laid_out]
        return Judgements("accuracy", right, is_answer)
    metric = task.primary_metric if task.primary_metric in ANSWER_METRICS else "exact_match"
    metric = _GRADED_INSTEAD.get(metric, metric)
    percent = item_scores(metric, [(example.target, *example.targets[1:]) for example in examples], answers)
    assert percent is not None  # BLEU alone has no scores of single answers
    is_answer = [normalise_answer(a) != normalise_answer(no) for a, no in zip(answers, refusals, strict=True)]
    return Judgements(metric, (percent / 100.0).tolist(), is_answer)


def _names_same(task: Task, example: Example, first: str, second: str) -> bool:
    """Return whether two answers name the same label or, where the task has no labels, are the same text."""
    labels = [task.label_record(answer, example).get(_LABEL) for answer in (first, second)]
    return first == second or (labels[0] is not None and labels[0] == labels[1])
