"""The official scores of relation extraction for any selection of the items: for resampling, thousands of times."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Int64

from retrograd.metrics.relations import (
    OTHER,
    SEMEVAL_LABELS,
    SEMEVAL_RELATIONS,
    WRONG_DIRECTION,
    Answers,
    GoldLabels,
    label_pairs,
    official_cell,
)

__all__ = ["macro_resampler", "official_resampler", "semeval_resampler", "tacred_resampler"]


def official_resampler(
    metric: str, gold: GoldLabels, predicted: Answers, negative: str | None
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """The official score in percent of any selection of the items; ``metric`` is "semeval", "macro" or "micro"."""
    if metric == "semeval":
        return semeval_resampler(gold, predicted)
    if metric == "macro":
        return macro_resampler(gold, predicted, negative)
    if metric == "micro":
        return tacred_resampler(gold, predicted, negative)
    raise ValueError(f"metric {metric!r}; expected semeval, macro or micro")


def tacred_resampler(
    gold: GoldLabels, predicted: Answers, negative: str | None = "no_relation"
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """`relation_table(…).micro.f1` of any selection of the items, by row and with repetition: for resampling tests."""
    pairs = label_pairs(gold, predicted, None)
    guessed = np.array([guess not in (None, negative) for _, guess in pairs])
    wanted = np.array([answer != negative for answer, _ in pairs])
    correct = wanted & np.array([answer == guess for answer, guess in pairs])
    # Each item as one small number, counted in one pass: neither guessed nor wanted, one of them, both, both and equal.
    kinds = guessed.astype(np.int64) + wanted + correct

    def f1(rows: Int64[np.ndarray, " rows"]) -> float:
        _, one, both, right = np.bincount(kinds[rows], minlength=4).tolist()
        counted = one + 2 * (both + right)
        return 100.0 * 2 * right / counted if counted else 0.0

    return f1


def macro_resampler(
    gold: GoldLabels, predicted: Answers, negative: str | None = "no_relation"
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """`relation_table(…).macro.f1` of any selection of the items, by row and with repetition: for resampling tests.

    The macro average runs over the relations that the selection has.
    """
    pairs = label_pairs(gold, predicted, None)
    codes = {
        label: code for code, label in enumerate(dict.fromkeys(answer for answer, _ in pairs if answer != negative))
    }
    relations = len(
        codes
    )  # the code of all that no average counts: the negative, no answer, relations never in the key
    wanted = np.array([codes.get(answer, relations) for answer, _ in pairs])
    guessed = np.array([relations if guess is None else codes.get(guess, relations) for _, guess in pairs])
    correct = np.where(wanted == guessed, wanted, relations)

    def macro_f1(rows: Int64[np.ndarray, " rows"]) -> float:
        right, gold_items, guesses = (
            np.bincount(code[rows], minlength=relations + 1)[:relations] for code in (correct, wanted, guessed)
        )
        present = gold_items > 0
        if not present.any():
            return 0.0
        return float(100.0 * np.mean(2 * right[present] / (guesses + gold_items)[present]))

    return macro_f1


def semeval_resampler(gold: GoldLabels, predicted: Answers) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """`semeval_score(…).macro_f1` of any selection of the items, by row and with repetition: for resampling tests.

    The macro average runs over the relations that the selection has.
    """
    columns = {name: i for i, name in enumerate((*SEMEVAL_RELATIONS, OTHER, WRONG_DIRECTION, None))}
    cells = [official_cell(pair) for pair in label_pairs(gold, predicted, SEMEVAL_LABELS)]
    width, relations = len(columns), len(SEMEVAL_RELATIONS)
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
