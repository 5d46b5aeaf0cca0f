"""Resampled scores are those of the corpus metrics on the selected items."""

from __future__ import annotations

import numpy as np
import pytest

from retrograd.metrics.answers import corpus_bleu, corpus_exact_match, corpus_rouge, corpus_token_f1
from retrograd.metrics.resampling import answer_resampler, item_scores
from retrograd.types import UserError

GOLDS = [["the cup"], ["rain and flood", "heavy rain"], ["a wheel of the car"], ["tea"], ["box in a box"]]
ANSWERS = ["Cup", "rain", "the wheel of a car", "coffee", "box in box in box"]
DIRECT = {
    "exact_match": corpus_exact_match,
    "f1": corpus_token_f1,
    "rouge_1": lambda golds, answers: corpus_rouge(golds, answers).rouge_1,
    "rouge_2": lambda golds, answers: corpus_rouge(golds, answers).rouge_2,
    "rouge_l": lambda golds, answers: corpus_rouge(golds, answers).rouge_l,
    "bleu_1": lambda golds, answers: corpus_bleu(golds, answers, 1).percent,
    "bleu_4": lambda golds, answers: corpus_bleu(golds, answers, 4).percent,
}


UNSPACED_GOLDS = [
    ["\u6211\u4eec\u53bb\u5317\u4eac"],
    ["\u5929\u6c14\u5f88\u597d", "\u5929\u6c14\u4e0d\u9519"],
    ["tea"],
    ["\u6c34"],
    ["rain"],
]
UNSPACED_ANSWERS = ["\u6211\u4eec\u53bb\u4e0a\u6d77", "\u5929\u6c14\u975e\u5e38\u597d", "tea", "\u6c34", "heavy rain"]


@pytest.mark.parametrize(
    ("golds", "answers"), [(GOLDS, ANSWERS), (UNSPACED_GOLDS, UNSPACED_ANSWERS)], ids=["English", "without spaces"]
)
@pytest.mark.parametrize("metric", DIRECT)
def test_any_selection_scores_as_it_would_alone(metric: str, golds: list[list[str]], answers: list[str]) -> None:
    resampled = answer_resampler(metric, golds, answers)
    for rows in ([0, 1, 2, 3, 4], [2, 2, 4], [1, 3, 0, 1], [3, 3]):
        expected = DIRECT[metric]([golds[r] for r in rows], [answers[r] for r in rows])
        assert resampled(np.array(rows)) == pytest.approx(expected, abs=1e-9)


def test_only_means_have_item_scores() -> None:
    found = item_scores("f1", GOLDS, ANSWERS)
    assert found is not None
    assert found.mean() == pytest.approx(corpus_token_f1(GOLDS, ANSWERS))
    assert item_scores("bleu_4", GOLDS, ANSWERS) is None


def test_unknown_metrics_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(UserError, match=r"metric 'f2' .* expected one of exact_match, .*f1, .*bleu_4"):
        item_scores("f2", GOLDS, ANSWERS)
    with pytest.raises(UserError, match="4 answers to 5 lists"):
        answer_resampler("bleu_1", GOLDS, ANSWERS[:4])
