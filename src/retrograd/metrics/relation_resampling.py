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

__all__ = ["semeval_resampler", "tacred_resampler"]


def tacred_resampler(
    gold: GoldLabels, predicted: Answers, negative: str | None = "no_relation"
) -> Callable[[Int64[np.ndarray, " rows"]], float]:
    """`tacred_score(…).f1` of any selection of the items, by row and with repetition: for resampling tests.

    Without a ``negative`` it is micro-F1 over all labels.
    """
    pairs = label_pairs(gold, predicted, None)
    guessed = np.array([guess not in (None, negative) for _, guess in pairs])
    wanted = np.array([answer != negative for answer, _ in pairs])
    correct = wanted & np.array([answer == guess for answer, guess in pairs])
    counts = np.stack([2 * correct, guessed.astype(np.int64) + wanted])

    def f1(rows: Int64[np.ndarray, " rows"]) -> float:
        twice_correct, both = counts[:, rows].sum(axis=1)
        return 100.0 * int(twice_correct) / int(both) if both else 0.0

    return f1


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
