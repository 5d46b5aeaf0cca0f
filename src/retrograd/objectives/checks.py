"""Checks shared by all objectives: of mistyped settings, and of numbers that are not what their name says."""

from __future__ import annotations

import math

from retrograd.deferred import Float, Tensor, torch
from retrograd.objectives.functional import in_full_precision
from retrograd.types import UserError

__all__ = [
    "NotFiniteError",
    "check_choice",
    "check_count",
    "check_log_likelihood",
    "check_log_probability",
    "check_positive",
    "check_share",
]

LOG_LIKELIHOOD_TOLERANCE = 1e-3
"""Largest log-likelihood above zero that counts as rounding, in nats."""


class NotFiniteError(ValueError):
    """Raised where a number that a model computed is NaN: training diverged, no argument was wrong."""


def check_choice(owner: object, setting: str, value: str, allowed: tuple[str, ...]) -> None:
    """Raise `UserError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        choices = " or ".join(repr(choice) for choice in allowed)
        raise UserError(f"{type(owner).__name__}: {setting} is {value!r}; it must be {choices}")


def check_count(owner: object, setting: str, value: int) -> None:
    """Raise `UserError` unless ``value`` is at least 1."""
    if value < 1:
        raise UserError(f"{type(owner).__name__}: {setting} is {value!r}; it must be a whole number of at least 1")


def check_positive(owner: object, setting: str, value: float) -> None:
    """Raise `UserError` unless ``value`` is above 0 and finite."""
    if not 0.0 < value < math.inf:
        raise UserError(f"{type(owner).__name__}: {setting} is {value!r}; it must be above 0 and finite")


def check_share(owner: object, setting: str, value: float) -> None:
    """Raise `UserError` unless 0 < ``value`` ≤ 1."""
    if not 0.0 < value <= 1.0:
        raise UserError(f"{type(owner).__name__}: {setting} is {value!r}; it must be above 0 and at most 1")


def check_log_probability(name: str, value: Float[Tensor, "B K"]) -> None:
    """Raise `ValueError` unless every row of ``value`` can be log-probabilities: Σ_K exp(value) ≤ 1 + 1e-3.

    Catches the two classical slips, a probability (every entry ≥ 0, the sum is at least K) and a logit (the sum is
    anything), as well as NaN. A log-softmax taken of probabilities is a distribution again and cannot be distinguished
    from outside. In half precision one rounding of log p = -3 moves p by up to 1 %, so 5 % are allowed there. Costs one
    reduction over [B K] and, on an accelerator, one wait for it.
    """
    if value.numel() == 0:
        return
    tolerance = 1e-3 if torch.finfo(value.dtype).eps < 1e-4 else 5e-2
    total = in_full_precision(value.detach()).exp().sum(dim=-1).max().item()
    if math.isnan(total):
        raise NotFiniteError(f"{name} contains NaN; the scores it was computed from overflowed or were divided by zero")
    if total > 1.0 + tolerance:
        raise ValueError(
            f"{name}: a row sums to {total:.4g} as probabilities, more than 1; a probability or a logit was handed "
            f"where a log-probability is expected (apply log_softmax exactly once, and no softmax before it)"
        )


def check_log_likelihood(value: Float[Tensor, "*shape"]) -> None:
    """Raise `ValueError` unless every entry can be a log-likelihood of text: at most 0 nats, and not NaN
    (`NotFiniteError`)."""
    if value.numel() == 0:
        return
    largest = value.detach().max().item()
    if math.isnan(largest):
        raise NotFiniteError("the log-likelihood contains NaN; the generator overflowed (half precision?) or diverged")
    if largest > LOG_LIKELIHOOD_TOLERANCE:
        raise ValueError(
            f"a log-likelihood is {largest:.4g} nats; text has none above 0: a loss (its negative), a probability or a "
            f"logit was handed where log p(y|x,z) is expected"
        )
