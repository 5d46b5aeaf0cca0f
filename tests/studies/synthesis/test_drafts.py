"""Which words of a passage can be an answer, and which of them are drawn."""

from __future__ import annotations

import pytest

from retrograd.studies.synthesis.drafts import answer_spans, choose_spans
from retrograd.types import Passage

TEXT = "The bridge was opened by Anna Berg in May 1931. In 1980 Anna Berg sold 412 of its lamps to the town of Sandvik."
BRIDGE = Passage("p", "Harbour Bridge", TEXT)


def answers(passage: Passage) -> list[str]:
    return [span.of(passage.text) for span in answer_spans(passage)]


def test_names_dates_and_numbers_are_answers_each_once() -> None:
    assert answers(BRIDGE) == ["Anna Berg", "May 1931", "1980", "412", "Sandvik"]


@pytest.mark.parametrize(
    ("title", "text", "expected"),
    [
        ("Sandvik", "The old ferry goes to Sandvik and to Ostfeld every day.", ["Ostfeld"]),  # the title holds it
        ("", "It goes to Ostfeld.", []),  # a short sentence
        ("", "nothing here has a name at all .", []),
        ("", "We read about " + " ".join(["Anna"] * 9) + " in the paper of that day.", []),  # nine words
    ],
)
def test_what_cannot_be_asked_for_is_left_out(title: str, text: str, expected: list[str]) -> None:
    assert answers(Passage("p", title, text)) == expected


def test_answers_of_many_passages_are_not_drawn() -> None:
    passages_with = dict.fromkeys(answers(BRIDGE), 1) | {"1980": 4, "Sandvik": 3}
    drafts = choose_spans(BRIDGE, passages_with, most_others=2, count=9, seed=0)
    assert [(one.answer, one.others) for one in drafts] == [
        ("Anna Berg", 0),
        ("May 1931", 0),
        ("412", 0),
        ("Sandvik", 2),
    ]
    assert all(TEXT[one.start : one.end] == one.answer for one in drafts)


def test_a_draw_depends_on_seed_and_passage_alone() -> None:
    passages_with = dict.fromkeys(answers(BRIDGE), 1)
    draws = {seed: [one.answer for one in choose_spans(BRIDGE, passages_with, 0, 2, seed)] for seed in range(20)}
    assert all(len(draw) == 2 for draw in draws.values())
    assert draws[3] == [one.answer for one in choose_spans(BRIDGE, passages_with, 0, 2, 3)]
    assert {answer for draw in draws.values() for answer in draw} == set(answers(BRIDGE))
