"""Scores of free answers for any selection of the items: for resampling, thousands of times.

Exact match, token F1 and ROUGE are means, so that an item's score is computed once. Corpus BLEU (Papineni et al. 2002)
is no mean, but a function of sums over the items: matched and possible n-grams, and the two lengths.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from sacrebleu.metrics.bleu import BLEU

from retrograd.metrics.answers import exact_match, rouge, token_f1
from retrograd.types import UserError

__all__ = ["answer_resampler", "bleu_resampler", "item_scores"]

Golds = Sequence[Sequence[str]]
_BLEU_ORDERS = {"bleu_1": 1, "bleu_4": 4}
_ITEM_SCORES: dict[str, Callable[[Sequence[str], str], float]] = {
    "exact_match": exact_match,
    "f1": token_f1,
    "rouge_1": lambda golds, answer: rouge(golds, answer).rouge_1,
    "rouge_2": lambda golds, answer: rouge(golds, answer).rouge_2,
    "rouge_l": lambda golds, answer: rouge(golds, answer).rouge_l,
}


def item_scores(metric: str, golds: Golds, answers: Sequence[str]) -> Float64[np.ndarray, " items"] | None:
    """The score of each item in percent, of which the corpus score is the mean; None for BLEU, which is no mean.

    Raises `UserError` for an unknown metric, for unequal lengths and for an item without a gold answer.
    """
    _require_aligned(golds, answers)
    if metric in _BLEU_ORDERS:
        return None
    if metric not in _ITEM_SCORES:
        known = ", ".join([*_ITEM_SCORES, *_BLEU_ORDERS])
        raise UserError(f"metric {metric!r} of answers cannot be resampled; expected one of {known}")
    score = _ITEM_SCORES[metric]
    return 100.0 * np.array([score(gold, answer) for gold, answer in zip(golds, answers, strict=True)])


def answer_resampler(
    metric: str, golds: Golds, answers: Sequence[str]
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """The corpus score in percent of any selection of items, by row and with repetition. Raises as `item_scores`."""
    found = item_scores(metric, golds, answers)
    if found is None:
        return bleu_resampler(golds, answers, _BLEU_ORDERS[metric])
    return lambda rows: float(found[rows].mean())


def bleu_resampler(golds: Golds, answers: Sequence[str], order: int) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """`corpus_bleu(…, order).percent` of any selection of the items. Raises `UserError` for unequal lengths."""
    _require_aligned(golds, answers)
    bleu = BLEU(max_ngram_order=order, effective_order=True)
    each = [bleu.sentence_score(answer, list(gold)) for gold, answer in zip(golds, answers, strict=True)]
    counts = np.array([[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in each], dtype=np.int64)

    def score(rows: Int64[np.ndarray, " rows"]) -> float:
        total = counts[rows].sum(axis=0).tolist()
        correct, possible, (said, wanted) = total[:order], total[order:-2], total[-2:]
        found = BLEU.compute_bleu(correct, possible, said, wanted, "exp", max_ngram_order=order)
        return float(found.score)

    return score


def _require_aligned(golds: Golds, answers: Sequence[str]) -> None:
    if len(golds) != len(answers):
        raise UserError(f"{len(answers)} answers to {len(golds)} lists of gold answers; give one answer per item")
