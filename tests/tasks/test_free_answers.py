"""Questions and dialogues share what is said here of tasks with answers in free words."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrograd.data.masking import MASK
from retrograd.metrics.words import NonWords
from retrograd.tasks.dialogue import GroundedDialogue
from retrograd.tasks.question_answering import QuestionAnswering
from retrograd.tasks.task import Task
from retrograd.types import Example, Passage, UserError

FreeTask = QuestionAnswering | GroundedDialogue
EXAMPLE = Example("1", "What pulls the water?", ("the moon",))
TIDES, MOON = Passage("a", "Tides", "Water rises twice a day."), Passage("b", "", "The moon pulls.")


@pytest.fixture(params=[QuestionAnswering, GroundedDialogue])
def task(request: pytest.FixtureRequest) -> FreeTask:
    return request.param(query_prefix="find: ", passage_prefix="read: ", no_answer="cannot answer")


def test_it_is_a_task_without_choices(task: FreeTask) -> None:
    assert isinstance(task, Task)
    assert task.choices is None
    assert task.choices_for(EXAMPLE) is None
    assert task.negative_for(EXAMPLE) == "cannot answer"
    assert replace(task, no_answer=None).negative_for(EXAMPLE) is None
    assert task.label_record("the moon", EXAMPLE) == {}
    with pytest.raises(UserError, match=rf"{task.name}.* no head, tail and context"):
        task.role_spans("text")


def test_passages_are_read_with_titles_unless_it_is_set_otherwise(task: FreeTask) -> None:
    assert task.passage_text(TIDES) == "read: Tides: Water rises twice a day."
    assert task.passage_text(MOON) == "read: The moon pulls."
    assert task.neighbour_text(TIDES) == "Tides: Water rises twice a day."
    untitled = replace(task, titles=False)
    assert untitled.passage_text(TIDES) == "read: Water rises twice a day."
    assert untitled.neighbour_text(TIDES) == TIDES.text


def test_prefixes_and_separators_are_no_words(task: FreeTask) -> None:
    assert task.non_words == NonWords(("find: ", "read: "), (" [SEP] ", MASK))


def test_identity_levels_case_and_spaces(task: FreeTask) -> None:
    assert task.identity("What  IS it?") == task.identity("what is it?")


def test_an_unknown_metric_is_refused(task: FreeTask) -> None:
    with pytest.raises(UserError, match="did you mean 'rouge_l'"):
        replace(task, primary_metric="rougel")
