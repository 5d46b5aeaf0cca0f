r"""What an index holds of a passage: the prior's embedding, and behind it the posterior's where that has its own.

Usually both retrievers share one passage tower, and a row is e(z). Where the posterior has a passage tower of its own,
e', they are

.. math:: [\, e(z),\ e'(z) \,], \qquad [\, e(x) / T,\ 0 \,], \qquad [\, 0,\ e'(x, y) / T' \,]

as row, prior's query and posterior's query: each inner product is that of its own two towers. So one index serves both,
and whatever holds for an index holds for it: log Z over the base, samples, refreshing, sharding. It is as wide as both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever
from retrograd.util.fingerprints import fingerprint

__all__ = ["Owner", "PassageSide"]

Owner = Literal["prior", "posterior"]


@dataclass(frozen=True)
class PassageSide:
    """The passage tower of the prior, and of a posterior that has its ``own``: None where it shares the prior's.

    D is the width of a row, D_i that of one of the retrievers.
    """

    prior: Retriever
    own: Retriever | None = None

    @classmethod
    def of(cls, prior: Retriever, posterior: Retriever | None) -> PassageSide:
        """Of a model's retrievers."""
        if posterior is None or posterior.passage_encoder is prior.passage_encoder:
            return cls(prior)
        return cls(prior, posterior)

    @property
    def retrievers(self) -> list[Retriever]:
        """Those with a passage tower of their own, in the order of their numbers in a row."""
        return [self.prior] if self.own is None else [self.prior, self.own]

    @property
    def towers(self) -> list[Encoder]:
        """Their passage towers."""
        return [one.passage_encoder for one in self.retrievers]

    @property
    def dimension(self) -> int:
        """D."""
        return sum(tower.dimension for tower in self.towers)

    @property
    def device(self) -> torch.device:
        """Where passages are embedded."""
        return self.prior.passage_encoder.device

    @property
    def moves(self) -> bool:
        """Whether training changes any passage embedding, so that an index grows stale."""
        return any(one.passages_move for one in self.retrievers)

    @property
    def learns(self) -> bool:
        """Whether any passage embedding has a gradient."""
        return any(one.trained == "both" for one in self.retrievers)

    def embed(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Rows, without gradient and without dropout."""
        return torch.cat([tower.embed(texts) for tower in self.towers], dim=-1)

    def passages(self, texts: Sequence[str], posterior: bool) -> Float[Tensor, "B D"]:
        """Rows, with gradient where passages learn; zeros in the place of the posterior's own unless it is asked for.

        Without dropout, as in the index: with dropout here alone, candidates would fall behind the rest of the base.
        """
        training = [tower.training for tower in self.towers]
        for tower in self.towers:
            tower.eval()
        try:
            rows = self.prior.passages(texts)
            if self.own is not None and posterior:
                return torch.cat([rows, self.own.passages(texts)], dim=-1)
            return self.placed(rows, "prior")
        finally:
            for tower, mode in zip(self.towers, training, strict=True):
                tower.train(mode)

    def no_passage(self, text: str, posterior: bool) -> Float[Tensor, " D"]:
        """The row of the null passage, in the words of ``text``; like `passages`."""
        row = self.prior.no_passage(text)
        if self.own is not None and posterior:
            return torch.cat([row, self.own.no_passage(text)])
        return self.placed(row, "prior")

    def placed(self, vectors: Float[Tensor, "*at D_i"], owner: Owner) -> Float[Tensor, "*at D"]:
        """The queries of ``owner`` as they are compared with rows, or its part of rows; zeros elsewhere."""
        before, behind = self._around(owner)
        return nn.functional.pad(vectors, (before, behind)) if before or behind else vectors

    def part(self, rows: Float[Tensor, "*at D"], owner: Owner) -> Float[Tensor, "*at D_i"]:
        """The numbers of rows, or of queries that were placed, that ``owner`` compares."""
        before, behind = self._around(owner)
        return rows[..., before : rows.shape[-1] - behind]

    def parts(self, rows: Float[Tensor, "Z D"]) -> list[Float[Tensor, "Z _"]]:
        """Those of each tower."""
        return list(rows.split([tower.dimension for tower in self.towers], dim=-1))

    def semantic(self, rows: Float[Tensor, "Z D"]) -> list[Float[Tensor, "Z _"]]:
        """Those of each tower that training can move: without the numbers of a lexical projection."""
        return [part[:, : tower.semantic_dimension] for part, tower in zip(self.parts(rows), self.towers, strict=True)]

    def fingerprint(self) -> str:
        """Over what decides a row but for the passage's words. Hashes the weights."""
        own = [tower.fingerprint() for tower in self.towers]
        return own[0] if len(own) == 1 else fingerprint(own)

    def _around(self, owner: Owner) -> tuple[int, int]:
        """How many numbers of a row stand before and behind those of ``owner``."""
        if self.own is None:
            return 0, 0
        first, second = (tower.dimension for tower in self.towers)
        return (0, second) if owner == "prior" else (first, 0)
