"""How far two computations of the same training may lie apart, from step size, number of steps and precision.

AdamW moves a weight by about its rate, whatever the size of its gradient: where a gradient is rounding alone, two
processors may step in opposite directions, and after n steps their weights lie up to 2·rate·n apart. That bound is as
large as training itself. So two arrangements are compared under plain gradient descent, w ← w - rate·g, where rounding
of the gradient stays rounding of the weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

__all__ = [
    "TINY_DEPTH",
    "TINY_TERMS",
    "assert_equal_but_rounding",
    "assert_same_gradients",
    "assert_same_weights",
    "descent_tolerance",
    "plain_descent",
    "rounding",
]

UNIT = 2.0**-24
"""The unit roundoff of fp32."""

TINY_TERMS, TINY_DEPTH = 64, 24
"""Of the models of `tests/conftest.py` on a few short texts: a sum runs over at most 64 numbers (words, tokens of the
batch, a width of 16 or 32), and a weight is within 12 matrix products of the loss, made again on the way back.
"""


def rounding(terms: int, depth: int) -> float:
    """Return the relative error of ``depth`` sums in a row, each of at most ``terms`` terms added in any order in fp32.

    A sum of n terms has a relative error of at most n·u (Higham 2002, section 4.2); errors of first order add up.
    """
    return depth * terms * UNIT


def descent_tolerance(rate: float, steps: int, norm: float, terms: int, depth: int) -> float:
    """Return how far weights of size up to 1 lie apart after descent with gradients of at most ``norm``.

    Each step moves a weight by rate·g, where g has the error above, and rounds the weight once.
    """
    return steps * (rate * norm * rounding(terms, depth) + UNIT)


def assert_equal_but_rounding(found: Tensor, expected: Tensor) -> None:
    """Compare what a tiny model gives with what another with the same weights gives.

    Where weights lie in memory (a file that is mapped into it begins anywhere) decides where vector instructions begin,
    and so in which order a matrix product adds up.
    """
    tolerance = rounding(TINY_TERMS, TINY_DEPTH)
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def assert_same_weights(found: torch.nn.Module, expected: torch.nn.Module) -> None:
    """Compare all weights and buffers of two modules bit by bit."""
    weights, others = found.state_dict(), expected.state_dict()
    assert weights.keys() == others.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, others[name]), name


def assert_same_gradients(found: Sequence[Tensor], expected: Sequence[Tensor], terms: int, depth: int) -> None:
    """Compare the gradients of all weights: each number may be off by the rounding of the largest of them, for one that
    is zero in theory is what is left of terms of that size."""
    assert len(found) == len(expected) > 0
    largest = max(float(gradient.abs().max()) for gradient in expected)
    for gradient, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=0, atol=largest * rounding(terms, depth))


@contextmanager
def plain_descent() -> Iterator[None]:
    """Have AdamW make steps of plain gradient descent."""

    @torch.no_grad()
    def step(self: torch.optim.AdamW, closure: None = None) -> None:
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    weight.add_(weight.grad, alpha=-float(group["lr"]))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch.optim.AdamW, "step", step)
        yield
