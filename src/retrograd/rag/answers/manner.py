"""The manner of answering: a value, which settings and models share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from retrograd.types import UserError

__all__ = ["Manner", "Marginal", "require_beams"]

Marginal = Literal["thorough", "fast", "best"]
"""How one of the answers that were written from several passages is taken (`retrograd.rag.answers.written`)."""


def require_beams(beams: int) -> None:
    """Raise `UserError` for less than one beam."""
    if beams < 1:
        raise UserError(f"evaluation.beams is {beams}; expected 1, the greedy search, or more")


@dataclass(frozen=True)
class Manner:
    """The manner of answering: choosing among permitted answers, if a task has a closed set, or writing.

    Passages are read one by one, "singly"; all of them in one prompt, best first, "together"; or each in a prompt of
    its own that an encoder-decoder encodes by itself, "fused" (`retrograd.models.inputs.fusion`). Passages that are
    read singly are mixed answer by answer, or token by token (`retrograd.rag.answers.token_mixture`), as ``mixture``
    says. ``beams`` and ``marginal`` are for written answers: the width of the beam search, and, for answers written
    singly, which of them is taken (`retrograd.rag.answers.written`). Raises `UserError` for less than one beam.
    """

    answers: Literal["chosen", "written"] = "chosen"
    reading: Literal["singly", "together", "fused"] = "singly"
    beams: int = 1
    marginal: Marginal = "thorough"
    mixture: Literal["answers", "tokens"] = "answers"

    def __post_init__(self) -> None:
        require_beams(self.beams)

    @property
    def one_prompt(self) -> bool:
        """True if a query's passages are read at once."""
        return self.reading != "singly"

    @property
    def mixes_tokens(self) -> bool:
        """True if a query's passages are read singly and mixed token by token."""
        return self.mixture == "tokens" and not self.one_prompt
