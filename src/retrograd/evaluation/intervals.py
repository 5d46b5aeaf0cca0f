"""How sure the scores of an evaluation are: bootstrap intervals over its test examples.

They say what other test examples of the same kind would give this trained model. Another training seed is another
source of chance, which they do not see.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from retrograd.metrics.significance import Ratio, ScoreInterval, bootstrap_corpus, bootstrap_ratios
from retrograd.tasks.resampled_scores import score_ratios, score_statistics
from retrograd.tasks.task import Task
from retrograd.types import Example

__all__ = ["RESAMPLES", "measure_intervals"]

RESAMPLES = 1_000
_SEED = 0


def measure_intervals(
    task: Task,
    examples: Sequence[Example],
    answers: Sequence[str],
    scores: Mapping[str, float],
    other_ratios: Mapping[str, Ratio],
) -> dict[str, ScoreInterval]:
    """Return the 95 % interval of each of the ``scores`` that single examples add up to, always the same.

    ``other_ratios`` are scores of more than the answers, by name. None of fewer than two examples has an interval.
    """
    if len(examples) < 2:
        return {}
    names = [name for name, value in scores.items() if math.isfinite(value)]
    ratios = {**score_ratios(task, examples, answers, names), **other_ratios}
    intervals = bootstrap_ratios(ratios, np.random.default_rng(_SEED), RESAMPLES)
    for name, statistic in score_statistics(task, examples, answers, names).items():
        intervals[name] = bootstrap_corpus(statistic, len(examples), np.random.default_rng(_SEED), RESAMPLES)
    # A task of one's own may compute a score of the same name in another way; then the interval is not that score's.
    return {
        name: intervals[name]
        for name in names
        if name in intervals and math.isclose(intervals[name].score, scores[name], rel_tol=1e-9, abs_tol=1e-6)
    }
