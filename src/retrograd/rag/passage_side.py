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

import torch
from jaxtyping import Float
from torch import Tensor, nn

from retrograd.io import fingerprint
from retrograd.models.encoder import Encoder
from retrograd.models.retriever import Retriever

__all__ = ["POSTERIOR", "PRIOR", "PassageSide"]

PRIOR, POSTERIOR = 0, 1


@dataclass(frozen=True)
class PassageSide:
    """The passage towers of ``retrievers``: of the prior alone, which a posterior may share, or of prior and posterior.

    D is the width of a row, D_i that of retriever i.
    """

    retrievers: tuple[Retriever, ...]

    @classmethod
    def of(cls, prior: Retriever, posterior: Retriever | None) -> PassageSide:
        """One tower if they share it."""
        shared = posterior is None or posterior.passage_encoder is prior.passage_encoder
        return cls((prior,) if shared or posterior is None else (prior, posterior))

    @property
    def towers(self) -> list[Encoder]:
        """In the order of their numbers in a row."""
        return [one.passage_encoder for one in self.retrievers]

    @property
    def dimension(self) -> int:
        """D."""
        return sum(tower.dimension for tower in self.towers)

    @property
    def device(self) -> torch.device:
        """Where passages are embedded."""
        return self.towers[0].device

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
        return _joined([tower.embed(texts) for tower in self.towers])

    def passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Rows, with gradient where passages learn. Without dropout, as in the index: with dropout here alone,
        candidates would fall behind the rest of the base."""
        training = [tower.training for tower in self.towers]
        for tower in self.towers:
            tower.eval()
        try:
            return _joined([one.passages(texts) for one in self.retrievers])
        finally:
            for tower, mode in zip(self.towers, training, strict=True):
                tower.train(mode)

    def no_passage(self, text: str) -> Float[Tensor, " D"]:
        """The row of the null passage."""
        return torch.cat([one.no_passage(text) for one in self.retrievers])

    def placed(self, query: Float[Tensor, "B D_i"], owner: int) -> Float[Tensor, "B D"]:
        """A retriever's queries as they are compared with rows; ``owner`` is `PRIOR` or `POSTERIOR`."""
        if len(self.retrievers) == 1:
            return query
        before, behind = self._around(owner)
        return nn.functional.pad(query, (before, behind))

    def part(self, rows: Float[Tensor, "*at D"], owner: int) -> Float[Tensor, "*at D_i"]:
        """A retriever's own numbers of rows, or of queries that were placed."""
        before, behind = self._around(owner)
        return rows[..., before : rows.shape[-1] - behind]

    def semantic(self, rows: Float[Tensor, "Z D"]) -> Float[Tensor, "Z _"]:
        """The numbers that training can move, without those of lexical projections."""
        return _joined([self.part(rows, i)[:, : tower.semantic_dimension] for i, tower in enumerate(self.towers)])

    def fingerprint(self) -> str:
        """Over what decides a row but for the passage's words. Hashes the weights."""
        own = [tower.fingerprint() for tower in self.towers]
        return own[0] if len(own) == 1 else fingerprint(own)

    def _around(self, owner: int) -> tuple[int, int]:
        widths = [tower.dimension for tower in self.towers]
        place = min(owner, len(widths) - 1)
        return sum(widths[:place]), sum(widths[place + 1 :])


def _joined(parts: Sequence[Float[Tensor, "B _"]]) -> Float[Tensor, "B D"]:
    return parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=-1)
