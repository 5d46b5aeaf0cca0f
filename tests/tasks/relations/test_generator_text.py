"""The instruction: RAG4RE's parts in their order, and an example as the one difference that retrieval makes."""

from __future__ import annotations

from dataclasses import replace

from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.types import Example, Passage, Prompt

TASK = replace(RelationExtraction.semeval(neighbour_style="labelled"), input_style="instructed")
EXAMPLE = Example("q", r"The @ cup @ holds # tea # \@ noon .", ("holds some content",))
PASSAGES = [Passage("1", "part of whole", "The @ wheel @ of the # car # ."), Passage("2", "other", "A @ b @ # c # .")]


def test_parts_stand_in_the_published_order() -> None:
    prompt = TASK.prompt(EXAMPLE, PASSAGES)
    lines = prompt.splitlines()
    starts = ["A relation says", "Which of", "Example: ", "Example: ", "Sentence: ", "Head: ", "Tail: ", "Relations: "]
    assert [line.startswith(start) for line, start in zip(lines, starts, strict=False)] == [True] * 8
    assert "Sentence: The cup holds tea @ noon ." in lines
    assert ("Head: cup" in lines, "Tail: tea" in lines) == (True, True)
    assert lines[7] == f"Relations: {'; '.join(TASK.choices)}"
    assert prompt.endswith("\nRelation:")


def test_without_the_list_nothing_speaks_of_one() -> None:
    listed = TASK.prompt(EXAMPLE, PASSAGES).splitlines()
    prompt = replace(TASK, input_style="instructed, no list").prompt(EXAMPLE, PASSAGES)
    assert [line for line in listed if line not in prompt.splitlines()] == [listed[1], listed[7], listed[8]]
    assert "list" not in prompt
    assert isinstance(prompt, Prompt)
    assert prompt.shorten(0) == replace(TASK, input_style="instructed, no list").prompt(EXAMPLE, [])


def test_retrieval_adds_the_examples_and_nothing_else_and_they_are_spared_first() -> None:
    simple, retrieved = TASK.prompt(EXAMPLE, []), TASK.prompt(EXAMPLE, PASSAGES)
    assert isinstance(retrieved, Prompt)
    start, end = retrieved.spare
    assert retrieved[:start] + retrieved[end:] == simple
    assert retrieved[start:end].count("Example: ") == 2
    assert retrieved.shorten(0) == simple


def test_an_example_that_is_shortened_leaves_every_other_line_as_it_was() -> None:
    simple, retrieved = TASK.prompt(EXAMPLE, []), TASK.prompt(EXAMPLE, PASSAGES)
    start, end = retrieved.spare
    for characters in range(end - start):
        lines = [line for line in retrieved.shorten(characters).splitlines() if line not in simple.splitlines()]
        assert "".join(lines) == retrieved[start : start + characters].replace("\n", "")


def test_a_shortened_label_does_not_run_into_the_sentence() -> None:
    prompt = replace(TASK, neighbour_style="label only", input_style="marked").prompt(EXAMPLE, PASSAGES)
    assert prompt.shorten(8) == f"part of {EXAMPLE.query}"
    assert prompt.shorten(10) == f"part of {EXAMPLE.query}"
    assert prompt.shorten(2) == EXAMPLE.query


def test_examples_bear_the_label_or_not() -> None:
    styles = {
        style: replace(TASK, neighbour_style=style).prompt(EXAMPLE, PASSAGES[:1]).splitlines()[2]
        for style in ("labelled", "unlabelled", "label only")
    }
    assert styles == {
        "labelled": "Example: The wheel of the car . The relation of wheel to car is: part of whole",
        "unlabelled": "Example: The wheel of the car .",
        "label only": "Example: The relation of wheel to car is: part of whole",
    }


def test_other_styles_spare_their_neighbours_too() -> None:
    for style in ("labelled", "unlabelled", "label only"):
        for input_style in ("marked", "described"):
            task = replace(TASK, neighbour_style=style, input_style=input_style)
            prompt = task.prompt(EXAMPLE, PASSAGES)
            assert prompt.shorten(0) == task.prompt(EXAMPLE, [])
