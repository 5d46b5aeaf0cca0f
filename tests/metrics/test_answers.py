from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrograd.metrics.answers import (
    corpus_bleu,
    corpus_exact_match,
    corpus_rouge,
    corpus_token_f1,
    exact_match,
    normalise_answer,
    rouge,
    sentence_bleu,
    token_f1,
)
from retrograd.types import UserError

WORDS = st.lists(st.sampled_from(["red", "blue", "green", "fox", "dog"]), min_size=1, max_size=6).map(" ".join)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel Tower!", "eiffel tower"),
        ("U.S.A.", "usa"),  # a full stop vanishes, it does not split the word
        ("an apple, a day", "apple day"),
        ("theatre", "theatre"),  # an article only as a whole word
        ("the\u2013cat", "\u2013cat"),  # a dash outside ASCII stays, and ends the word before it
        ("A", ""),
        (" tab\tand\nline ", "tab and line"),
    ],
)
def test_normalisation(text: str, expected: str):
    assert normalise_answer(text) == expected


def test_exact_match_takes_the_best_gold():
    assert exact_match(["Lyon", "the City of Paris"], "city of paris.") == 1.0
    assert exact_match(["Lyon", "Paris"], "city of Paris") == 0.0


def test_token_f1_by_hand():
    # answer: 3 tokens, gold: 4 tokens, shared "big" once and "dog": 2 * 2 / (3 + 4)
    assert token_f1(["big brown dog barked"], "the big big dog") == pytest.approx(4 / 7)
    # the second gold shares 1 of 1 with 1 of 3 tokens: 2 / 4; the first shares nothing
    assert token_f1(["cat", "dog"], "big big dog") == pytest.approx(0.5)


@pytest.mark.parametrize(("gold", "answer", "expected"), [("the", "", 1.0), ("the", "cat", 0.0), ("cat", "a", 0.0)])
def test_token_f1_of_nothing_left(gold: str, answer: str, expected: float):
    assert token_f1([gold], answer) == expected


@given(WORDS, WORDS)
def test_token_f1_equals_a_slow_twin_and_ignores_order_and_case(gold: str, answer: str):
    left = gold.split()
    shared = 0
    for word in answer.split():
        if word in left:
            left.remove(word)
            shared += 1
    precision, recall = shared / len(answer.split()), shared / len(gold.split())
    expected = 0.0 if shared == 0 else 2 * precision * recall / (precision + recall)
    assert token_f1([gold], answer) == pytest.approx(expected)
    assert token_f1([gold], " ".join(reversed(answer.upper().split()))) == pytest.approx(expected)
    assert exact_match([gold], answer) <= token_f1([gold], answer)


@given(st.lists(WORDS, min_size=1, max_size=4), WORDS, WORDS)
def test_another_gold_never_lowers_a_score(golds: list[str], extra: str, answer: str):
    more = [*golds, extra]
    assert token_f1(more, answer) >= token_f1(golds, answer)
    assert exact_match(more, answer) >= exact_match(golds, answer)
    assert rouge(more, answer).rouge_l >= rouge(golds, answer).rouge_l


def test_corpus_means_are_percent():
    golds = [["Paris"], ["red dog", "blue dog"], ["one"], ["two"]]
    answers = ["paris", "dog", "two", "three"]
    assert corpus_exact_match(golds, answers) == pytest.approx(25.0)
    assert corpus_token_f1(golds, answers) == pytest.approx(100 * (1 + 2 / 3) / 4)


def test_rouge_by_hand():
    # unigrams: 4 shared of 4 and of 6; bigrams: "the cat" of 3 and of 5; longest common subsequence: 4 of 4 and of 6
    score = rouge(["the cat sat on the mat"], "the cat on mat")
    assert score.rouge_1 == pytest.approx(0.8)
    assert score.rouge_2 == pytest.approx(0.25)
    assert score.rouge_l == pytest.approx(0.8)
    # reversed words share every unigram, no bigram and a subsequence of 1 of 3
    score = rouge(["red green blue"], "blue green red")
    assert (score.rouge_1, score.rouge_2) == (1.0, 0.0)
    assert score.rouge_l == pytest.approx(1 / 3)


def test_rouge_stems_on_request():
    assert rouge(["dogs"], "dog").rouge_1 == 0.0
    assert rouge(["dogs"], "dog", stemmer=True).rouge_1 == 1.0
    assert corpus_rouge([["dogs"]], ["dog"], stemmer=True).rouge_1 == pytest.approx(100.0)


def test_corpus_rouge_is_the_mean_in_percent():
    score = corpus_rouge([["the cat sat on the mat"], ["red", "blue"]], ["the cat on mat", "blue"])
    assert score.rouge_1 == pytest.approx(100 * (0.8 + 1) / 2)
    assert score.rouge_2 == pytest.approx(100 * (0.25 + 0) / 2)
    assert score.rouge_l == pytest.approx(100 * (0.8 + 1) / 2)


def test_bleu_by_hand():
    # BLEU-1: every one of 4 tokens matches, brevity penalty exp(1 - 6/4)
    assert corpus_bleu([["the cat sat on the mat"]], ["the cat on mat"], order=1).percent == pytest.approx(
        100 * math.exp(-0.5)
    )
    # BLEU-4: precisions 4/5, 3/4, 2/3, 1/2, whose product is 1/5
    assert corpus_bleu([["a b c d f"]], ["a b c d e"]).percent == pytest.approx(100 * 0.2**0.25)


def test_bleu_sums_counts_over_the_corpus_and_takes_any_number_of_golds():
    # unigrams: 2 of 2 and 1 of 4, so 3 of 6; a mean of sentences would give (1 + 1/4) / 2
    golds = [["x y", "a b"], ["a b c d"]]
    assert corpus_bleu(golds, ["a b", "a x y z"], order=1).percent == pytest.approx(50.0)
    assert corpus_bleu([["v w x y z"], ["q r s t", "a b c d"]], ["v w x y z", "a b c d"]).percent == pytest.approx(
        100.0
    )


def test_bleu_carries_its_signature():
    score = corpus_bleu([["a b"], ["c", "d"]], ["A b", "c"], order=1, lowercase=True)
    assert score.percent == pytest.approx(100.0)
    assert "case:lc" in score.signature
    assert "nrefs:var" in score.signature
    assert str(score) == f"BLEU-1 100.00 ({score.signature})"


def test_corpus_bleu_of_answers_too_short_for_its_order_is_0():
    # "a b" has no 3-gram: the geometric mean over four orders has an empty factor, and no order is left out
    score = corpus_bleu([["a b"]], ["a b"])
    assert score.percent == 0.0
    assert "eff:no" in score.signature


def test_sentence_bleu_is_a_share_and_leaves_out_missing_orders():
    assert sentence_bleu(["red dog"], "red dog") == pytest.approx(1.0)
    # BLEU-2 of 3 tokens: precisions 2/3 and 1/2, no brevity penalty
    assert sentence_bleu(["a b d"], "a b c", order=2) == pytest.approx(math.sqrt(1 / 3))


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=5))
def test_corpus_scores_ignore_the_order_of_examples_and_perfect_is_100(pairs: list[tuple[str, str]]):
    golds, answers = [[gold] for gold, _ in pairs], [answer for _, answer in pairs]
    assert corpus_token_f1(golds[::-1], answers[::-1]) == pytest.approx(corpus_token_f1(golds, answers))
    assert corpus_bleu(golds[::-1], answers[::-1], 1).percent == pytest.approx(corpus_bleu(golds, answers, 1).percent)
    perfect = [gold for gold, _ in pairs]
    assert corpus_exact_match(golds, perfect) == 100.0
    assert corpus_token_f1(golds, perfect) == pytest.approx(100.0)
    assert corpus_bleu(golds, perfect, 1).percent == pytest.approx(100.0)
    assert corpus_rouge(golds, perfect).rouge_l == pytest.approx(100.0)


@pytest.mark.parametrize("score", [exact_match, token_f1, rouge, sentence_bleu])
def test_an_example_without_gold_is_an_error(score):
    with pytest.raises(UserError, match="no gold answer; scoring needs at least one"):
        score([], "x")
    with pytest.raises(UserError, match=r"single string 'Paris'; expected a list, such as \['Paris'\]"):
        score("Paris", "Paris")


@pytest.mark.parametrize("score", [corpus_exact_match, corpus_token_f1, corpus_rouge, corpus_bleu])
def test_unequal_or_empty_corpora_are_errors(score):
    with pytest.raises(UserError, match="2 lists of gold answers but 1 answers; expected one answer per example"):
        score([["a"], ["b"]], ["a"])
    with pytest.raises(UserError, match="no answers to score"):
        score([], [])
    with pytest.raises(UserError, match="no gold answer"):
        score([["a"], []], ["a", "b"])


def test_bleu_order_must_be_positive():
    with pytest.raises(UserError, match="BLEU order is 0; expected the longest n-gram"):
        corpus_bleu([["a"]], ["a"], order=0)
