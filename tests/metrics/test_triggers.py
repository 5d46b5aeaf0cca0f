"""Triggers computed by hand: PMI, minimum counts, order, and what is not a word."""

from __future__ import annotations

import math

import pytest

from retrograd.metrics.triggers import MOST, context_words, learn_triggers, plain_words


def test_words_keep_hyphens_and_apostrophes_and_drop_punctuation() -> None:
    assert plain_words("The tea-pot's lid ( red ) , No. 7 .") == ["The", "tea-pot's", "lid", "red", "No", "7"]


def test_entities_numbers_and_case_leave_no_word() -> None:
    text = "The cup holds 3 cups of hot tea"
    assert context_words(text, (4, 7), (28, 31)) == {"the", "holds", "cups", "of", "hot"}
    nested = "a tea cup broke"
    assert context_words(nested, (2, 9), (2, 5)) == {"a", "broke"}
    assert context_words("cup cup", (0, 3), (0, 3)) == {"cup"}  # elsewhere the same word is context


def test_pmi_by_hand() -> None:
    """The counts are by hand: 12 sentences, 4 of them "made": "built" in 3 of those and nowhere else, "by" in all 4
    and in 1 other.
    """
    made = [{"built", "by"}, {"built", "by"}, {"built", "by", "oak"}, {"by", "oak"}]
    none = [{"by"}, {"the"}, {"the"}, {"the"}, {"the"}, {"the"}, {"the"}, {"the"}]
    found = learn_triggers([*made, *none], ["made"] * 4 + ["none"] * 8, "none")
    assert set(found) == {"made"}
    built, by = found["made"]
    assert (built.word, built.sentences, by.word, by.sentences) == ("built", 3, "by", 4)
    assert built.pmi == pytest.approx(math.log2(3 * 12 / (3 * 4)))
    assert by.pmi == pytest.approx(math.log2(4 * 12 / (5 * 4)))


def test_a_word_that_is_as_common_elsewhere_is_no_trigger() -> None:
    found = learn_triggers([{"the"}] * 4 + [{"the"}] * 4, ["a"] * 4 + ["b"] * 4, None)
    assert found == {"a": (), "b": ()}


def test_the_least_share_grows_with_the_relation() -> None:
    """A relation of 200 sentences requires 4 with the word (2 %), not 3."""
    sentences = [{"rare"}] * 3 + [{"often"}] * 4 + [set()] * 193 + [set()] * 800
    found = learn_triggers(sentences, ["a"] * 200 + ["none"] * 800, "none")
    assert [trigger.word for trigger in found["a"]] == ["often"]


def test_the_best_come_first_and_the_rest_is_cut() -> None:
    many = {f"w{number:02d}" for number in range(MOST + 5)}
    found = learn_triggers([many] * 3 + [{"x"}] * 9, ["a"] * 3 + ["none"] * 9, "none")
    assert [trigger.word for trigger in found["a"]] == sorted(many)[:MOST]
