"""The distinct prefixes of token sequences: what many answers share is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool
from torch import Tensor

__all__ = ["PrefixTree"]


@dataclass(frozen=True)
class PrefixTree:
    """The distinct prefixes of a list of token sequences: each is projected onto the vocabulary once.

    ``paths[c][t]`` is the number of the prefix that precedes token t of sequence c; ``owner`` is where each prefix is
    first met, as (sequence, position), in ascending order.
    """

    paths: tuple[tuple[int, ...], ...]
    owner: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, sequences: Sequence[list[int]]) -> PrefixTree:
        number: dict[tuple[int, ...], int] = {}
        owner: list[tuple[int, int]] = []
        paths: list[tuple[int, ...]] = []
        for c, ids in enumerate(sequences):
            path = []
            for t in range(len(ids)):
                prefix = tuple(ids[:t])
                if prefix not in number:
                    number[prefix] = len(number)
                    owner.append((c, t))
                path.append(number[prefix])
            paths.append(tuple(path))
        return cls(tuple(paths), tuple(owner))

    @property
    def prefixes(self) -> int:
        return len(self.owner)

    def first_seen(self, width: int) -> Bool[Tensor, "C {width}"]:
        mask = torch.zeros(len(self.paths), width, dtype=torch.bool)
        mask[tuple(torch.tensor(self.owner).T)] = True
        return mask
