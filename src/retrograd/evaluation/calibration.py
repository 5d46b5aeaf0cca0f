"""Fit a decision on development data: the weight of the neighbours' vote, and the threshold of "no relation".

A grid, because the official scores are steps: every λ of `VOTE_WEIGHTS`, and for each a threshold b at quantiles of the
margins, best positive less negative, at which some example changes its answer. The model runs once. Of all decisions
within one standard error of the best (of its gain over none, by bootstrap over the examples) the one nearest to none is
taken: with a few hundred examples the best of some two hundred decisions always gains a little by chance.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from retrograd.evaluation.evaluate import answering_batches
from retrograd.models.settings import Scoring
from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.rag.rag_model import RagModel
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject
from retrograd.util.progress import bar
from retrograd.util.records import record_mapping

__all__ = ["VOTE_WEIGHTS", "Calibration", "Official", "calibrate", "fit_decision"]

VOTE_WEIGHTS = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0, 4.0)
_THRESHOLDS = 33
_RESAMPLES = 100

Official = Callable[[Sequence[int], Sequence[str]], float]
"""The official score of answers to the examples at these rows; a row may come several times."""


@dataclass(frozen=True)
class Calibration:
    """A fitted decision, with the official scores on the development data without and with it, in percent.

    ``after`` is of the examples that the decision was fitted on, so it flatters a little. The decision belongs to
    ``passages`` and ``scoring``, with which the model answered.
    """

    decision: Decision
    metric: str
    before: float
    after: float
    examples: int
    passages: int
    scoring: Scoring

    def record(self) -> JsonObject:
        """Return the calibration as JSON."""
        return {
            "metric": self.metric,
            "before": self.before,
            "after": self.after,
            "examples": self.examples,
            "passages": self.passages,
            "scoring": self.scoring,
            "decision": dict(record_mapping(self.decision)),
        }


def calibrate(model: RagModel, examples: Sequence[Example], k: int, scoring: Scoring = "sequence") -> Calibration:
    """Fit the decision that scores best on ``examples``, none of which the model should have been trained on.

    The model's own decision is left as it is. Raises `UserError` for a task with an open set of answers, or without
    examples.
    """
    if not examples or model.task.choices is None:
        raise UserError(
            f"a decision cannot be fitted on {len(examples)} examples of the task {model.task.name!r}; expected at "
            f"least one example, of a task with a closed set of answers; set evaluation.calibrate = false"
        )
    scores: list[ChoiceScores] = []
    with bar("calibrating", len(examples), "examples") as advance:
        for batch in answering_batches(examples, k):
            scores += model.choice_scores(batch, k, scoring) or []
            advance(len(batch))
    metric = model.task.primary_metric

    def official(rows: Sequence[int], answers: Sequence[str]) -> float:
        return model.task.score([examples[row] for row in rows], answers)[metric]

    decision, before, after = fit_decision(scores, official)
    return Calibration(decision, metric, before, after, len(examples), k, scoring)


def fit_decision(scores: Sequence[ChoiceScores], official: Official) -> tuple[Decision, float, float]:
    """Return the best decision for the scores, and what ``official`` says of the answers without it and with it."""
    all_rows = range(len(scores))
    has_votes = any(bool((score.vote > 0).any()) for score in scores)
    plain = [score.choices[Decision().choose(score)] for score in scores]
    trials = [(official(all_rows, plain), Decision(), plain)]
    for vote_weight in VOTE_WEIGHTS if has_votes else (0.0,):
        margins = _Margins.of(scores, Decision(vote_weight))
        for bias in margins.thresholds():
            answers = margins.answers(bias)
            trials.append((official(all_rows, answers), Decision(vote_weight, bias), answers))
    best, _, answers = max(trials, key=lambda trial: trial[0])
    sufficient = best - _standard_error(plain, answers, official)
    score, decision, _ = min(
        (trial for trial in trials if trial[0] >= sufficient),
        key=lambda trial: (trial[1].vote_weight, abs(trial[1].negative_bias)),
    )
    return decision, trials[0][0], score


def _standard_error(plain: Sequence[str], answers: Sequence[str], official: Official) -> float:
    """Return the standard error of the difference of two scores on the same examples, by resampling them."""
    rng = np.random.default_rng(0)
    draws: list[list[int]] = rng.integers(len(plain), size=(_RESAMPLES, len(plain))).tolist()
    gains = [
        official(rows, [answers[row] for row in rows]) - official(rows, [plain[row] for row in rows]) for rows in draws
    ]
    return float(np.std(gains))


@dataclass(frozen=True)
class _Margins:
    """The best positive choice of each example, and by how many nats it is ahead of the negative choice."""

    scores: Sequence[ChoiceScores]
    positive: Int[Tensor, " N"]
    margin: Float[Tensor, " N"]

    @classmethod
    def of(cls, scores: Sequence[ChoiceScores], decision: Decision) -> _Margins:
        positive: list[int] = []
        margin: list[float] = []
        for score in scores:
            total = decision(score)
            rest = total.clone()
            if score.negative is not None and len(rest) > 1:
                rest[score.negative] = -torch.inf
            best = int(rest.argmax())
            positive.append(best)
            # Without a negative choice, or with nothing else, no threshold changes the answer.
            is_fixed = score.negative is None or best == score.negative
            margin.append(torch.inf if is_fixed else float(total[best] - total[score.negative or 0]))
        return cls(scores, torch.tensor(positive), torch.tensor(margin, dtype=torch.double))

    def thresholds(self) -> list[float]:
        """Return 0 and values halfway between neighbouring margins, at even quantiles."""
        finite = self.margin[self.margin.isfinite()].unique()  # sorted
        if len(finite) < 2:
            return [0.0]
        between = (finite[1:] + finite[:-1]) / 2
        quantiles = torch.linspace(0, len(between) - 1, min(_THRESHOLDS, len(between))).round().long().unique()
        return [0.0, *between[quantiles].tolist()]

    def answers(self, bias: float) -> list[str]:
        """Return the answers when ``bias`` nats are added to the score of the negative choice."""
        return [
            score.choices[score.negative if margin < bias and score.negative is not None else best]
            for score, best, margin in zip(self.scores, self.positive.tolist(), self.margin.tolist(), strict=True)
        ]
