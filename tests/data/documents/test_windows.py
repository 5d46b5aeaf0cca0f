"""Windows have whole sentences where these fit, every word, and the overlap that was asked for."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.data.documents.windows import Windows, window_spans
from retrograd.types import UserError
from retrograd.util.guards import JsonObject
from retrograd.util.records import read_record

Settings = tuple[int, int, Literal["words", "sentences"], Literal["en", "any"]]
TEXTS = st.text(alphabet="aB1. !?\n\"é'茶。", max_size=120)
WINDOWS = st.integers(1, 9).flatmap(
    lambda words: st.tuples(
        st.just(words),
        st.integers(0, words - 1),
        st.sampled_from(["words", "sentences"]),
        st.sampled_from(["en", "any"]),
    )
)
TEXT = "Cups hold tea. Rain falls on roofs. Cars have wheels. Boxes are shut."


def cut(text: str, windows: Windows, split_sentences: Callable[[str], object] | None = None) -> list[str]:
    spans = window_spans(text, windows, split_sentences)  # pyright: ignore[reportArgumentType]
    return [text[start:end] for start, end in spans]


@given(TEXTS, WINDOWS)
def test_every_word_is_in_a_window_and_no_window_is_blank_or_too_long(text: str, settings: Settings) -> None:
    windows = Windows(*settings)
    spans = list(window_spans(text, windows))
    covered = {place for start, end in spans for place in range(start, end)}
    assert all(place in covered for place, character in enumerate(text) if not character.isspace())
    assert all(text[start:end] == text[start:end].strip() != "" for start, end in spans)
    assert all(len(text[start:end].split()) <= windows.words for start, end in spans)
    assert all(before < after for (before, _), (after, _) in itertools.pairwise(spans))


def test_windows_end_with_sentences() -> None:
    assert cut(TEXT, Windows(8, 0)) == ["Cups hold tea. Rain falls on roofs.", "Cars have wheels. Boxes are shut."]


def test_the_overlap_is_of_whole_sentences() -> None:
    assert cut(TEXT, Windows(8, 4)) == [
        "Cups hold tea. Rain falls on roofs.",
        "Rain falls on roofs. Cars have wheels.",
        "Cars have wheels. Boxes are shut.",
    ]
    assert cut(TEXT, Windows(8, 3)) == cut(TEXT, Windows(8, 0))
    assert cut(TEXT, Windows(10, 2, "sentences")) == [
        "Cups hold tea. Rain falls on roofs. Cars have wheels.",
        "Rain falls on roofs. Cars have wheels. Boxes are shut.",
    ]


def test_long_sentences_are_cut_at_lines_and_long_lines_at_words() -> None:
    assert cut("one two three\nfour five six seven\neight", Windows(4, 0)) == [
        "one two three",
        "four five six seven",
        "eight",
    ]
    assert cut("one two three four five", Windows(2, 0)) == ["one two", "three four", "five"]


def test_the_language_decides_where_sentences_end() -> None:
    text = "Dr. Lee came in. She sat."
    assert cut(text, Windows(4, 0, language="en")) == ["Dr. Lee came in.", "She sat."]
    assert cut(text, Windows(3, 0, language="any")) == ["Dr.", "Lee came in.", "She sat."]
    for language in ("en", "any"):
        assert cut("杯里有茶。下雨了。", Windows(5, 0, language=language)) == ["杯里有茶。", "下雨了。"]
        assert cut("कप में चाय है। बारिश हुई।", Windows(4, 0, language=language)) == ["कप में चाय है।", "बारिश हुई।"]


def test_a_function_of_ones_own_says_where_sentences_are() -> None:
    def by_bar(text: str) -> list[tuple[int, int]]:
        middle = text.index("|")
        return [(2, middle), (middle + 1, len(text))]

    # What stands in no sentence belongs to the one before it, and at the beginning to the first.
    assert cut("a b c | d e", Windows(4, 0), by_bar) == ["a b c |", "d e"]
    assert cut("a b", Windows(4, 0), lambda text: []) == ["a b"]


@pytest.mark.parametrize(
    "spans", [[(0, 99)], [(3, 5), (0, 2)], [(2, 1)], [(-1, 2)], ["a b"], [(0,)], [(0.0, 1.0)], [None]]
)
def test_a_function_that_returns_no_sentences_of_the_text_is_refused(spans: list[object]) -> None:
    with pytest.raises(UserError, match=r"split_sentences returned .*; expected"):
        cut("a b c d", Windows(4, 0), lambda text: spans)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"words": 0}, "words is 0; expected 1"),
        ({"overlap": -1}, "overlap is -1"),
        ({"words": 20, "overlap": 20}, "overlap is 20 words of 20"),
        ({"overlap_in": "sentence"}, "expected one of 'words', 'sentences'"),
        ({"language": "de"}, "language is 'de'; expected one of 'en', 'any'"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: JsonObject, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_record(Windows, settings, "windows")
