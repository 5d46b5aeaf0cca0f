"""Official scores of any selection of the items, fast enough to resample thousands of times.

A resampler takes rows (positions of items, with repetition) and returns the corpus score of the selection in percent.

* Free answers: exact match, token F1 and ROUGE are means, so that the score of an item is computed once. Corpus BLEU
  (Papineni et al. 2002) is not a mean but a function of sums over the items: matched and possible n-grams, and the two
  lengths.
* Relations: TACRED's micro-F1, macro-F1 and the SemEval-2010 Task 8 score are functions of counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from jaxtyping import Float64, Int64
from sacrebleu.metrics.bleu import BLEU

from retrograd.metrics.answers import exact_match, rouge, token_f1
from retrograd.metrics.patterns import regex_match
from retrograd.metrics.relations import (
    OTHER,
    SEMEVAL_LABELS,
    SEMEVAL_RELATIONS,
    WRONG_DIRECTION,
    GoldLabels,
    PredictedLabels,
    official_cell,
    pair_labels,
)
from retrograd.metrics.words import space_characters
from retrograd.types import UserError

__all__ = [
    "answer_resampler",
    "bleu_resampler",
    "item_scores",
    "macro_resampler",
    "official_resampler",
    "semeval_resampler",
    "tacred_resampler",
]

Golds = Sequence[Sequence[str]]
_BLEU_ORDERS = {"bleu_1": 1, "bleu_4": 4}
_ITEM_SCORES: dict[str, Callable[[Sequence[str], str], float]] = {
    "exact_match": exact_match,
    "regex_match": regex_match,
    "f1": token_f1,
    "rouge_1": lambda golds, answer: rouge(golds, answer).rouge_1,
    "rouge_2": lambda golds, answer: rouge(golds, answer).rouge_2,
    "rouge_l": lambda golds, answer: rouge(golds, answer).rouge_l,
}


def item_scores(metric: str, golds: Golds, answers: Sequence[str]) -> Float64[np.ndarray, " items"] | None:
    """Return the score of each item in percent, whose mean is the corpus score; None for BLEU, which is not a mean.

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
    """Return a function from rows to the corpus score of these items. Raises as `item_scores` does."""
    scores = item_scores(metric, golds, answers)
    if scores is None:
        return bleu_resampler(golds, answers, _BLEU_ORDERS[metric])
    return lambda rows: float(scores[rows].mean())


def bleu_resampler(golds: Golds, answers: Sequence[str], order: int) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """Return a function from rows to `corpus_bleu(…, order).percent` of these items.

    Raises `UserError` for unequal lengths.
    """
    _require_aligned(golds, answers)
    bleu = BLEU(max_ngram_order=order, effective_order=True)
    sentences = [
        bleu.sentence_score(space_characters(answer), list(map(space_characters, gold)))
        for gold, answer in zip(golds, answers, strict=True)
    ]
    counts = np.array(
        [[*statistics.counts, *statistics.totals, statistics.sys_len, statistics.ref_len] for statistics in sentences],
        dtype=np.int64,
    )

    def score(rows: Int64[np.ndarray, " rows"]) -> float:
        total = counts[rows].sum(axis=0).tolist()
        correct, possible, (answer_length, reference_length) = total[:order], total[order:-2], total[-2:]
        bleu_score = BLEU.compute_bleu(correct, possible, answer_length, reference_length, "exp", max_ngram_order=order)
        return float(bleu_score.score)

    return score


def _require_aligned(golds: Golds, answers: Sequence[str]) -> None:
    if len(golds) != len(answers):
        raise UserError(f"{len(answers)} answers to {len(golds)} lists of gold answers; give one answer per item")


def official_resampler(
    metric: str, gold: GoldLabels, predicted: PredictedLabels, negative: str | None, unseen: Collection[str] = ()
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """Return a function from rows to the official score of these items; ``metric`` is "semeval", "macro" or "micro".

    ``unseen`` are labels of the key that no prediction names, as in `semeval_score`.
    """
    if metric == "semeval":
        return semeval_resampler(gold, predicted, unseen)
    if metric == "macro":
        return macro_resampler(gold, predicted, negative)
    if metric == "micro":
        return tacred_resampler(gold, predicted, negative)
    raise ValueError(f"metric {metric!r}; expected semeval, macro or micro")


def tacred_resampler(
    gold: GoldLabels, predicted: PredictedLabels, negative: str | None = "no_relation"
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """Return a function from rows to `relation_table(…).micro.f1` of these items."""
    pairs = pair_labels(gold, predicted, None)
    has_guess = np.array([guess not in (None, negative) for _, guess in pairs])
    has_answer = np.array([answer != negative for answer, _ in pairs])
    correct = has_answer & np.array([answer == guess for answer, guess in pairs])
    # Each item is one small number, counted in one pass: neither a guess nor an answer, one, both, both and equal.
    kinds = has_guess.astype(np.int64) + has_answer + correct

    def f1(rows: Int64[np.ndarray, " rows"]) -> float:
        _, single, both, right = np.bincount(kinds[rows], minlength=4).tolist()
        total = single + 2 * (both + right)
        return 100.0 * 2 * right / total if total else 0.0

    return f1


def macro_resampler(
    gold: GoldLabels, predicted: PredictedLabels, negative: str | None = "no_relation"
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """Return a function from rows to `relation_table(…).macro.f1` of these items.

    The macro average runs over the relations that the selection has.
    """
    pairs = pair_labels(gold, predicted, None)
    codes = {
        label: code for code, label in enumerate(dict.fromkeys(answer for answer, _ in pairs if answer != negative))
    }
    # the code of all that no average counts: the negative, no answer, relations never in the key
    relations = len(codes)
    gold_codes = np.array([codes.get(answer, relations) for answer, _ in pairs])
    guess_codes = np.array([relations if guess is None else codes.get(guess, relations) for _, guess in pairs])
    correct_codes = np.where(gold_codes == guess_codes, gold_codes, relations)

    def macro_f1(rows: Int64[np.ndarray, " rows"]) -> float:
        right, gold_items, guesses = (
            np.bincount(code[rows], minlength=relations + 1)[:relations]
            for code in (correct_codes, gold_codes, guess_codes)
        )
        present = gold_items > 0
        if not present.any():
            return 0.0
        return float(100.0 * np.mean(2 * right[present] / (guesses + gold_items)[present]))

    return macro_f1


def semeval_resampler(
    gold: GoldLabels, predicted: PredictedLabels, unseen: Collection[str] = ()
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """Return a function from rows to `semeval_score(…).macro_f1` of these items.

    The macro average runs over the relations that the selection has.
    """
    cells = [official_cell(pair) for pair in pair_labels(gold, predicted, (*SEMEVAL_LABELS, *unseen))]
    names = dict.fromkeys((*SEMEVAL_RELATIONS, *unseen))
    columns = {name: i for i, name in enumerate((*names, OTHER, WRONG_DIRECTION, None))}
    width, relations = len(columns), len(names)
    codes = np.array([columns[answer] * width + columns[guess] for answer, guess in cells])

    def macro_f1(rows: Int64[np.ndarray, " rows"]) -> float:
        counts = np.bincount(codes[rows], minlength=width * width).reshape(width, width)
        correct, wrong_direction = counts.diagonal()[:relations], counts[:relations, columns[WRONG_DIRECTION]]
        gold_items = counts.sum(axis=1)[:relations]
        guesses = counts.sum(axis=0)[:relations] + wrong_direction
        present = gold_items > 0
        if not present.any():
            return 0.0
        return float(100.0 * np.mean(2 * correct[present] / (guesses + gold_items)[present]))

    return macro_f1
