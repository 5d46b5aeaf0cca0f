r"""Decide on one answer of a closed set: by the generator's scores, a vote of the neighbours, and a threshold.

With C choices of an example, log p the generator's log-probabilities normalised over them, v the neighbours' vote (the
share of p(z|x) on passages that support the choice) and n the choice that says there is nothing to find:

.. math::
    s_c = \log p_c + \lambda \log\bigl((1 - \epsilon)\, v_c + \epsilon / C\bigr) + b\, [c = n].

λ = ``vote_weight`` mixes log-linearly (Khandelwal et al. 2020, arXiv 1911.00172, mix linearly); b = ``negative_bias``
in nats is the threshold that "no relation" has to pass. Both are 0 unless they were fitted on development data.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.types import UserError

__all__ = ["ChoiceScores", "Decision"]

_SMOOTHING = 0.01
"""ε: a choice without a vote is unlikely, not impossible."""


@dataclass(frozen=True)
class ChoiceScores:
    """One example's permitted answers, with the scores and the votes for each.

    ``log_probability`` is normalised over them. ``vote`` sums to at most 1; zeros where nothing was retrieved or the
    task has no test of support. ``negative`` is the position of the choice that means "nothing", or None.
    """

    choices: tuple[str, ...]
    log_probability: Float[Tensor, " C"]
    vote: Float[Tensor, " C"]
    negative: int | None


@dataclass(frozen=True)
class Decision:
    """Frozen λ and b of the module's equation. Raises `UserError` for a negative λ, and for infinite or NaN."""

    vote_weight: float = 0.0
    negative_bias: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.vote_weight < math.inf or not math.isfinite(self.negative_bias):
            raise UserError(
                f"decision: vote_weight is {self.vote_weight} and negative_bias {self.negative_bias}; set both to "
                f"finite numbers, vote_weight to at least 0"
            )

    def __call__(self, scores: ChoiceScores) -> Float[Tensor, " C"]:
        """Return the log-probability of each choice under the decision, normalised over the choices."""
        total = scores.log_probability
        if self.vote_weight > 0:
            uniform = _SMOOTHING / len(scores.choices)
            total = total + self.vote_weight * ((1 - _SMOOTHING) * scores.vote + uniform).log()
        if scores.negative is not None and self.negative_bias != 0:
            total = total.clone()
            total[scores.negative] += self.negative_bias
        return total.log_softmax(dim=-1)

    def choose(self, scores: ChoiceScores) -> int:
        """Return the position of the best choice; of equal ones the first."""
        return int(torch.argmax(self(scores)))
