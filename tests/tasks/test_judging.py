"""Each answer is judged by itself: by exact match, by F1, by its pattern, by its label."""

from __future__ import annotations

import pytest

from retrograd.data.examples import GroundedExample
from retrograd.data.squad import NO_ANSWER
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.judging import cannot_answer, judge_answers
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example

QUESTION = Example("1", "what holds tea ?", ("cup", "the box"))


def test_the_primary_metric_judges_free_answers() -> None:
    answers = ["The cup.", "box", "cup of tea", "Cannot answer"]
    exact = judge_answers(QuestionAnswering(), [QUESTION] * 4, answers)
    assert (exact.metric, exact.correctness) == ("exact_match", [1.0, 1.0, 0.0, 0.0])
    assert exact.is_answer == [True, True, True, False]
    f1 = judge_answers(GroundedDialogue(), [QUESTION] * 4, answers)
    assert f1.metric == "f1"
    assert f1.correctness == pytest.approx([1.0, 1.0, 0.5, 0.0])
    bleu = judge_answers(QuestionAnswering(primary_metric="bleu_4"), [QUESTION] * 4, answers)
    assert (bleu.metric, bleu.correctness) == ("f1", f1.correctness)


def test_patterns_are_matched() -> None:
    example = GroundedExample("1", "who ?", ("A(nn)? Lee",), (), True)
    judged = judge_answers(QuestionAnswering(primary_metric="regex_match"), [example] * 2, ["Ann Lee", "Lee"])
    assert (judged.metric, judged.correctness) == ("regex_match", [1.0, 0.0])


def test_the_words_for_no_answer_are_the_tasks_own() -> None:
    assert cannot_answer(QuestionAnswering(), QUESTION) == NO_ANSWER
    task = QuestionAnswering(no_answer="nobody knows")
    assert cannot_answer(task, QUESTION) == "nobody knows"
    judged = judge_answers(task, [Example("1", "who ?", ("nobody knows",))] * 2, ["Nobody knows.", NO_ANSWER])
    assert (judged.correctness, judged.is_answer) == ([1.0, 0.0], [False, True])


@pytest.mark.parametrize("negative", ["none", None])
def test_a_label_is_right_or_wrong(negative: str | None) -> None:
    task = RelationExtraction.from_labels(["holds", "part-of", "none"], negative=negative)
    example = Example("1", "the @ cup @ holds # tea #", ("holds",))
    judged = judge_answers(task, [example] * 4, ["holds", "part of", "none", "nonsense"])
    assert (judged.metric, judged.correctness) == ("accuracy", [1.0, 0.0, 0.0, 0.0])
    assert judged.is_answer == [True, True, negative is None, True]
    assert cannot_answer(task, example) == (negative or NO_ANSWER)
