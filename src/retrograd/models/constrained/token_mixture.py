r"""Write one text from several prompts at once, each next token from the mixture of what they give it.

    p(y_t | x, y_<t) = Σ_k p̃(z_k|x) p(y_t | x, z_k, y_<t)

This is the decoding of RAG-Token (Lewis et al. 2020, arXiv 2005.11401, §2.5). The prompts of a query are rows of one
batch of transformers' ``generate``. As all of them are given the mixture, they are continued by the same tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import LogitsProcessor

__all__ = ["MixTokens", "PromptMixture"]


@dataclass(frozen=True)
class PromptMixture:
    """The numbers of the prompts that one query mixes, at least one, and log p̃(z|x) of each, finite."""

    prompts: tuple[int, ...]
    log_weight: tuple[float, ...]


class MixTokens(LogitsProcessor):
    """A step of ``generate`` that gives each row the log-probabilities of its query's mixture.

    Rows are the prompts of one query after those of another, each with ``beams`` beams. Beams of the same rank are
    mixed: they hold the same text.
    """

    def __init__(self, mixtures: Sequence[PromptMixture], beams: int) -> None:
        self._beams = beams
        self._sizes = [len(mixture.prompts) for mixture in mixtures]
        self._log_weight = [torch.tensor(mixture.log_weight, dtype=torch.float64) for mixture in mixtures]

    @property
    def first_rows(self) -> list[int]:
        """Return the rows of the beams of each query's first prompt, which stand for those of the others."""
        rows: list[int] = []
        before = 0
        for size in self._sizes:
            rows += range(before, before + self._beams)
            before += size * self._beams
        return rows

    def __call__(self, input_ids: Int[Tensor, "rows T"], scores: Float[Tensor, "rows V"]) -> Float[Tensor, "rows V"]:
        """Return log Σ_k p̃(z_k|x) p(token|x,z_k,y_<t) for each row."""
        every = scores.log_softmax(dim=-1).unflatten(0, (-1, self._beams)).split(self._sizes)
        mixed = [
            (own + weight.to(own)[:, None, None]).logsumexp(dim=0).repeat(len(own), 1)
            for own, weight in zip(every, self._log_weight, strict=True)
        ]
        return torch.cat(mixed)
