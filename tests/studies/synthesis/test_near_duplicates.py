"""Near duplicates by prefix are those that the comparison of all pairs finds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from retrograd.studies.synthesis.near_duplicates import near_duplicates


def compare_all(texts: list[str], most: float) -> list[bool]:
    kept: list[set[str]] = []
    found: list[bool] = []
    for text in texts:
        own = set(text.split())
        found.append(any(len(own & other) > most * len(own | other) for other in kept))
        if not found[-1]:
            kept.append(own)
    return found


TEXTS = st.lists(st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=8).map(" ".join), max_size=25)


@given(TEXTS, st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0]))
def test_as_the_comparison_of_all_pairs(texts: list[str], most: float) -> None:
    assert near_duplicates(texts, most) == compare_all(texts, most)


def test_the_first_of_nearly_equal_questions_stays() -> None:
    texts = ["Who made the big cup?", "who made THE big cup", "Who made the big red cup?", "Who sold the car?"]
    assert near_duplicates(texts, 0.8) == [False, True, True, False]  # 5 of 6 words
    assert near_duplicates(texts, 0.9) == [False, True, False, False]
    assert near_duplicates(texts, 1.0) == [False] * 4


def test_a_duplicate_of_what_was_left_out_is_none() -> None:
    assert near_duplicates(["a b c d", "a b c d e", "b c d e f"], 0.6) == [False, True, False]
