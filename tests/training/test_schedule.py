"""Check the learning rate along its curve: the start, the end of the warm-up, the middle, the end."""

from __future__ import annotations

import math

import pytest

from retrograd.training.schedule import Schedule, build_schedule, rate_share
from retrograd.training.stage import Pace
from retrograd.types import UserError

STEPS, RISING = 50, 10  # 41 steps from the full rate at step 9 to zero at step 50


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.37, 0.99])
@pytest.mark.parametrize("steps", [0, 1, 2, 7, 50])
def test_linear_is_what_it_was_bit_for_bit(warmup: float, steps: int) -> None:
    share, rising = build_schedule("linear", warmup, 0, steps), max(1, round(warmup * steps))
    for step in range(steps + 1):
        assert share(step) == min((step + 1) / rising, (steps - step) / max(1, steps - rising + 1))


@pytest.mark.parametrize(
    ("schedule", "restarts", "expected"),
    [
        ("linear", 0, {29: 21 / 41, 30: 20 / 41, 49: 1 / 41, 50: 0.0}),
        ("constant", 0, {29: 1.0, 49: 1.0, 50: 1.0}),
        ("cosine", 0, {29: (1 + math.cos(math.pi * 20 / 41)) / 2, 49: (1 + math.cos(math.pi * 40 / 41)) / 2, 50: 0.0}),
        # Two cycles of 20.5 steps: the second begins between steps 29 and 30.
        (
            "cosine with restarts",
            1,
            {29: (1 + math.cos(math.pi * 40 / 41)) / 2, 30: (1 + math.cos(math.pi * 1 / 41)) / 2, 50: 0.0},
        ),
    ],
)
def test_each_curve(schedule: Schedule, restarts: int, expected: dict[int, float]) -> None:
    share = build_schedule(schedule, RISING / STEPS, restarts, STEPS)
    assert [share(step) for step in (0, 4, 8)] == pytest.approx([0.1, 0.5, 0.9])
    assert share(9) == 1.0
    assert {step: share(step) for step in expected} == pytest.approx(expected, abs=1e-12)
    assert all(0 < share(step) <= 1 for step in range(STEPS))


def test_without_warmup_the_first_step_has_the_full_rate() -> None:
    for schedule in ("linear", "constant", "cosine"):
        assert build_schedule(schedule, 0.0, 0, 8)(0) == 1.0
    assert [build_schedule("constant", 0.0, 0, 8)(step) for step in range(9)] == [1.0] * 9


def test_a_restart_is_at_the_full_rate_and_every_cycle_is_the_first_one() -> None:
    shares = [rate_share("cosine with restarts", 12, 1, 2, step) for step in range(13)]
    assert shares[0] == shares[4] == shares[8] == 1.0
    assert shares[:4] == shares[4:8] == shares[8:12]
    assert shares[3] < shares[2] < shares[1] < 1
    assert shares[12] == 0.0


@pytest.mark.parametrize(
    ("schedule", "restarts", "advice"),
    [
        ("cosine with restarts", 0, 'needs restarts; set it to 1, say, or take schedule = "cosine"'),
        ("cosine", 2, 'restarts belongs to schedule = "cosine with restarts", but schedule is "cosine"'),
        ("cosine with restarts", -1, "restarts is -1; expected 0 or more"),
    ],
)
def test_settings_that_do_not_go_together(schedule: Schedule, restarts: int, advice: str) -> None:
    with pytest.raises(UserError, match=advice):
        Pace(1, 4, 1e-3, 1e-3, schedule=schedule, restarts=restarts)


def test_more_restarts_than_steps() -> None:
    with pytest.raises(UserError, match=r"training\.restarts is 9, but 10 of the 10 steps .*set it to 4 at most"):
        build_schedule("cosine with restarts", 0.0, 9, 10)
    with pytest.raises(UserError, match=r'set it to 0, and training\.schedule to "cosine"'):
        build_schedule("cosine with restarts", 0.0, 1, 3)
    build_schedule("cosine with restarts", 0.0, 4, 10)
