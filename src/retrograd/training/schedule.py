"""Compute the learning rate as a share of its full value, a pure function of the step.

With S steps, W = max(1, round(warmup · S)) of them rising and F = S - W + 1 from the full rate to 0, the share at step
s = 0, 1, …, S - 1 is (s + 1) / W while that is below 1. After that, with p = (s - W + 1) / F, the share of the fall
that is over:

    linear                  1 - p
    constant                1
    cosine                  (1 + cos πp) / 2                 (Loshchilov & Hutter 2017, arXiv 1608.03983)
    cosine with restarts    (1 + cos π(Rp mod 1)) / 2        R = restarts + 1 cycles of equal length

A run of transformers with ``cosine_with_restarts`` and no number of cycles has one cycle, which never restarts: here
that is "cosine".
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal, get_args

from retrograd.types import UserError

__all__ = ["Schedule", "build_schedule", "rate_share", "require_schedule"]

Schedule = Literal["linear", "constant", "cosine", "cosine with restarts"]

_RESTARTING = "cosine with restarts"


def require_schedule(schedule: Schedule, restarts: int) -> None:
    """Raise `UserError` for an unknown schedule, and for a number of restarts that does not go with it."""
    if schedule not in get_args(Schedule):
        raise UserError(f"schedule is {schedule!r}; expected one of {', '.join(map(repr, get_args(Schedule)))}")
    if restarts < 0:
        raise UserError(f"restarts is {restarts}; expected 0 or more")
    if schedule == _RESTARTING and restarts == 0:
        raise UserError(f'schedule = "{_RESTARTING}" needs restarts; set it to 1, say, or take schedule = "cosine"')
    if schedule != _RESTARTING and restarts > 0:
        raise UserError(
            f'restarts belongs to schedule = "{_RESTARTING}", but schedule is "{schedule}"; set restarts to 0'
        )


def build_schedule(schedule: Schedule, warmup: float, restarts: int, steps: int) -> Callable[[int], float]:
    """Return `rate_share` as a function of the step. Raises `UserError` for cycles of less than two steps."""
    rising = max(1, round(warmup * steps))
    falling = max(1, steps - rising + 1)
    if restarts > 0 and falling < 2 * (restarts + 1):
        largest = falling // 2 - 1
        raise UserError(
            f"training.restarts is {restarts}, but {falling} of the {steps} steps come after the warm-up; "
            + (f"set it to {largest} at most" if largest > 0 else 'set it to 0, and training.schedule to "cosine"')
        )
    return partial(rate_share, schedule, steps, rising, restarts)


def rate_share(schedule: Schedule, steps: int, rising: int, restarts: int, step: int) -> float:
    """Return the share of the full rate, in [0, 1], at ``step`` (from 0); the first ``rising`` of ``steps`` rise."""
    rise = (step + 1) / rising
    falling = max(1, steps - rising + 1)
    left = (steps - step) / falling
    if schedule == "linear":
        return min(rise, left)
    if schedule == "constant" or rise < 1:
        return min(rise, 1.0)
    if left <= 0:
        return 0.0
    position = (step - rising + 1) * (restarts + 1) % falling  # whole numbers: a cycle begins exactly at the full rate
    return (1 + math.cos(math.pi * position / falling)) / 2
