"""Which sentences of a passage are asked about, and where an answer stands."""

from __future__ import annotations

import pytest

from retrograd.studies.synthesis.drafts import Draft, choose_sentences, find_answer, is_of_kind, opening
from retrograd.types import Passage, Span

TEXT = (
    "The bridge was opened by Anna Berg in May 1931. Then the town of Sandvik bought all of its lamps. "
    "In 1980 Anna Berg sold 412 of the old lamps again. It is long."
)
BRIDGE = Passage("p", "Harbour Bridge", TEXT)


def places(drafts: list[Draft]) -> list[tuple[str, str]]:
    return [(TEXT[one.sentence_start : one.sentence_end][:4].strip(), one.opening) for one in drafts]


def test_sentences_are_asked_about_once_for_each_opening() -> None:
    drafts = choose_sentences(BRIDGE, 9, seed=0)
    assert places(drafts) == [
        ("The", ""),
        ("The", "When"),
        ("Then", ""),
        ("In 1", ""),
        ("In 1", "How many"),
        ("In 1", "In what year"),
    ]
    assert [one.id for one in drafts] == [f"p:{number}" for number in range(6)]


@pytest.mark.parametrize(
    ("title", "text", "count"),
    [
        ("Ferry", "The old ferry goes to Sandvik every single day.", 1),
        ("Sandvik", "The old ferry goes to Sandvik every single day.", 0),  # the title says it
        ("Ferry", "The old ferry goes to Sandvik.", 0),  # five words beside it
        ("Ferry", "nothing here has a name at all .", 0),
        ("Ferry", "", 0),
    ],
)
def test_sentences_that_say_nothing_are_not_asked_about(title: str, text: str, count: int) -> None:
    assert len(choose_sentences(Passage("p", title, text), 9, seed=0)) == count


def test_a_draw_depends_on_seed_and_passage_alone() -> None:
    draws = {seed: places(choose_sentences(BRIDGE, 2, seed)) for seed in range(30)}
    assert all(len(draw) == 2 for draw in draws.values())
    assert draws[3] == places(choose_sentences(BRIDGE, 2, 3))
    drawn = {place for draw in draws.values() for place in draw}
    assert len(drawn) == 5
    assert ("Then", "") not in drawn  # it has a single word alone, and comes last


@pytest.mark.parametrize(
    ("said", "begins"),
    [
        ("1931", "In what year"),
        ("May 1931", "When"),
        ("Oct. 5", "When"),
        ("24 September 2007", "When"),
        ("1930s", "When"),
        ("2001-02-03", "When"),
        ("3,200", "How many"),
        ("43 million", "How many"),
        ("12.5 %", "What percentage"),
        ("80 percent", "What percentage"),
        ("$12", "How much"),
        ("Anna Berg", ""),
        ("NATO", ""),
    ],
)
def test_questions_for_dates_and_numbers_are_begun(said: str, begins: str) -> None:
    assert opening(said) == begins


def test_a_part_of_a_number_is_no_answer() -> None:
    passage = Passage("p", "", "It had 1.2 million lamps, 3,200 in 2 towns; then 2 million.")
    assert [find_answer(part, passage) is None for part in ("3", "200", "3,200", "1.2")] == [True, True, False, False]
    assert find_answer("2 million", passage) == Span(
        passage.text.index(" 2 million") + 1, passage.text.index(" 2 million") + 10
    )


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("anna  berg", "Anna Berg"),
        ("1980", "1980"),
        ("Berg in May", "Berg in May"),
        ("Ann", None),  # a part of a word
        ("Otto", None),
        ("bridge", None),  # the title says it
        ("?", None),
        ("", None),
        ("(", None),
    ],
)
def test_an_answer_is_found_as_whole_words(answer: str, found: str | None) -> None:
    span = find_answer(answer, BRIDGE)
    assert (None if span is None else span.of(TEXT)) == found


@pytest.mark.parametrize(
    ("begun", "answer", "expected"),
    [
        ("How many", "3,200", True),
        ("How many", "1986", False),
        ("How many", "two", True),
        ("What percentage", "40", True),
        ("When", "1986", True),
        ("When", "3,200", False),
        ("In what year", "May 1986", True),
        ("In what year", "Anna Berg", True),
        ("", "1986", True),
        ("", "3,200", True),
    ],
)
def test_dates_and_numbers_answer_questions_for_their_own_kind(begun: str, answer: str, expected: bool) -> None:
    assert is_of_kind(begun, answer) == expected
