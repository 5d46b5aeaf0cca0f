"""The decision among a closed set, against the equation written out."""

from __future__ import annotations

import math

import pytest
import torch

from retrograd.rag.answers.decision import ChoiceScores, Decision
from retrograd.types import UserError

SCORES = ChoiceScores(
    ("works for", "born in", "no relation"),
    torch.tensor([0.2, 0.3, 0.5]).log(),
    torch.tensor([0.9, 0.0, 0.1]),
    negative=2,
)


def test_alone_the_generator_decides() -> None:
    assert Decision().choose(SCORES) == 2
    torch.testing.assert_close(Decision()(SCORES).exp(), torch.tensor([0.2, 0.3, 0.5]))


def test_votes_and_threshold_enter_as_the_equation_says() -> None:
    found = Decision(vote_weight=0.5, negative_bias=-1.0)(SCORES)
    vote = [0.99 * share + 0.01 / 3 for share in (0.9, 0.0, 0.1)]
    raw = torch.tensor(
        [math.log(p) + 0.5 * math.log(v) - (c == 2) for c, (p, v) in enumerate(zip((0.2, 0.3, 0.5), vote, strict=True))]
    )
    torch.testing.assert_close(found, raw.log_softmax(-1))
    assert Decision(vote_weight=0.5, negative_bias=-1.0).choose(SCORES) == 0


def test_a_threshold_moves_the_negative_alone() -> None:
    assert Decision(negative_bias=-0.6).choose(SCORES) == 1
    assert Decision(negative_bias=-0.4).choose(SCORES) == 2
    assert float(SCORES.log_probability[2]) == pytest.approx(math.log(0.5))  # the scores themselves are left alone


@pytest.mark.parametrize("settings", [{"vote_weight": -1.0}, {"vote_weight": math.inf}, {"negative_bias": math.nan}])
def test_impossible_settings_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(UserError, match="decision"):
        Decision(**settings)
