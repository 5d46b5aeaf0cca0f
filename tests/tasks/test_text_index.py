"""Words, phrases and overlap: the index against a plain scan of every text."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.metrics.words import words_and_signs as words
from retrograd.metrics.words import words_without_signs as content_words
from retrograd.tasks.text_index import TextIndex, count_texts_with, has_answer

TEXT = st.text(alphabet="ab .-é\u0301$\n\u200b", max_size=24)
TEXTS = st.lists(TEXT, max_size=6)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The U.S. paid $12.", ["the", "u", ".", "s", ".", "paid", "$", "12", "."]),
        ("naïve—Café", ["nai\u0308ve", "—", "cafe\u0301"]),
        ("a_b", ["a", "_", "b"]),
        ("zero\u200bwidth", ["zero", "width"]),
        (" \t\n", []),
    ],
)
def test_words_are_runs_of_letters_and_single_signs(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(TEXT)
def test_the_fast_path_for_ascii_splits_as_the_general_one(text: str) -> None:
    ascii_only = text.encode("ascii", "ignore").decode()
    joined = re.sub(r"\s", "\u200b", ascii_only)  # a gap at which parts are not split
    assert words(f"é\u200b{joined}")[1:] == words(ascii_only)


def test_an_answer_is_whole_words_in_a_row() -> None:
    assert has_answer(["Art"], "a work of art")
    assert not has_answer(["art"], "a party")
    assert has_answer(["none", "U.S."], "in the U. S. of A.")
    assert not has_answer(["New York"], "York, New")
    assert has_answer(["Zurich", "Zu\u0308rich"], "in Zürich")
    assert not has_answer(["Zurich"], "in Zürich")  # as in DPR, accents count
    assert not has_answer(["", " "], "anything")


@given(TEXTS, TEXT)
def test_rows_with_a_phrase_are_those_of_a_scan(texts: list[str], phrase: str) -> None:
    expected = [row for row, text in enumerate(texts) if has_answer([phrase], text)]
    index = TextIndex(texts)
    assert index.rows_with_phrase(words(phrase)).tolist() == expected
    for word in content_words(phrase):
        assert index.rows_with_word(word).tolist() == [row for row, text in enumerate(texts) if word in words(text)]


@given(TEXTS, TEXT)
def test_overlap_is_the_share_of_rare_words(texts: list[str], wanted: str) -> None:
    index = TextIndex(texts)
    held = [set(words(text)) for text in texts]
    weight = {}
    for word in content_words(wanted):
        count = sum(word in one for one in held)
        weight[word] = math.log((len(texts) + 1) / (count + 1)) if 2 * count <= len(texts) else 0.0
    total = sum(weight.values())
    expected = [sum(w for word, w in weight.items() if word in one) / total if total else 0.0 for one in held]
    np.testing.assert_allclose(index.overlap(content_words(wanted)), expected, atol=1e-12)
    rows = np.arange(len(texts))[::-1]
    np.testing.assert_allclose(index.overlap_at(rows, content_words(wanted)), expected[::-1], atol=1e-12)


def test_no_phrase_runs_from_one_text_into_the_next() -> None:
    index = TextIndex(["alpha beta", "gamma", "beta gamma"])
    assert index.rows_with_phrase(["beta", "gamma"]).tolist() == [2]
    assert index.rows_with_phrase(["alpha", "beta", "gamma"]).tolist() == []
    assert index.rows_with_phrase([]).tolist() == []
    assert len(index) == 3


@given(texts=TEXTS, answers=st.lists(TEXT, max_size=6))
def test_counts_of_texts_are_those_of_the_test_of_each(texts: list[str], answers: list[str]) -> None:
    expected = {answer: sum(has_answer([answer], text) for text in texts) for answer in answers}
    assert count_texts_with(answers, texts) == expected
