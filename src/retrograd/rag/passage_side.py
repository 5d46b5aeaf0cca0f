r"""The row of an index: the prior's passage embedding, followed by the posterior's if that has a tower of its own.

Usually both retrievers share one passage tower, and a row is e(z). Where the posterior has a passage tower of its own,
e', they are

.. math:: [\, e(z),\ e'(z) \,], \qquad [\, e(x) / T,\ 0 \,], \qquad [\, 0,\ e'(x, y) / T' \,]

as row, prior's query and posterior's query: each inner product is that of its own two towers. So one index serves both,
and log Z over the base, samples, refreshing and sharding work as for any index. It is as wide as both.
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
    """The passage tower of the prior, and of ``own_posterior``, which is None if the posterior shares the prior's.

    D is the width of a row, D_i the width of one retriever's embedding.
    """

    prior: Retriever
    own_posterior: Retriever | None = None

    @classmethod
    def of(cls, prior: Retriever, posterior: Retriever | None) -> PassageSide:
        """Return the passage side of a model's retrievers."""
        if posterior is None or posterior.passage_encoder is prior.passage_encoder:
            return cls(prior)
        return cls(prior, posterior)

    @property
    def retrievers(self) -> list[Retriever]:
        """The retrievers with a passage tower of their own, in the order of their numbers in a row."""
        return [self.prior] if self.own_posterior is None else [self.prior, self.own_posterior]

    @property
    def towers(self) -> list[Encoder]:
        """The passage towers, in the order of their numbers in a row."""
        return [retriever.passage_encoder for retriever in self.retrievers]

    @property
    def dimension(self) -> int:
        """D, the width of a row."""
        return sum(tower.dimension for tower in self.towers)

    @property
    def device(self) -> torch.device:
        """The device on which passages are embedded."""
        return self.prior.passage_encoder.device

    @property
    def batch_tokens(self) -> tuple[int, ...]:
        """The most padded tokens of a batch, of each tower."""
        return tuple(tokens for tower in self.towers for tokens in tower.batch_tokens)

    @property
    def moves(self) -> bool:
        """True if training changes any passage embedding, so that an index grows stale."""
        return any(retriever.passages_move for retriever in self.retrievers)

    @property
    def has_gradient(self) -> bool:
        """True if any passage embedding has a gradient."""
        return any(retriever.trains_passages for retriever in self.retrievers)

    def embed_passages(self, texts: Sequence[str]) -> Float[Tensor, "B D"]:
        """Return rows of texts, without gradient and without dropout."""
        return torch.cat([tower.embed_passages(texts) for tower in self.towers], dim=-1)

    def passages(self, texts: Sequence[str], posterior: bool) -> Float[Tensor, "B D"]:
        """Return rows, with gradient where passages are trained; zeros for the posterior's part unless ``posterior``.

        Without dropout, as in the index: with dropout here alone, candidates would score lower than other rows.
        """
        training = [tower.training for tower in self.towers]
        for tower in self.towers:
            tower.eval()
        try:
            rows = self.prior.passages(texts)
            if self.own_posterior is not None and posterior:
                return torch.cat([rows, self.own_posterior.passages(texts)], dim=-1)
            return self.pad_to_row(rows, "prior")
        finally:
            for tower, mode in zip(self.towers, training, strict=True):
                tower.train(mode)

    def no_passage(self, text: str, posterior: bool) -> Float[Tensor, " D"]:
        """Return the row of the null passage, whose text is ``text``; otherwise as `passages`."""
        row = self.prior.no_passage(text)
        if self.own_posterior is not None and posterior:
            return torch.cat([row, self.own_posterior.no_passage(text)])
        return self.pad_to_row(row, "prior")

    def pad_to_row(self, vectors: Float[Tensor, "*at D_i"], owner: Owner) -> Float[Tensor, "*at D"]:
        """Pad the queries of ``owner``, or its part of rows, with zeros to the width of a row."""
        before, after = self._widths_around(owner)
        return nn.functional.pad(vectors, (before, after)) if before or after else vectors

    def part(self, rows: Float[Tensor, "*at D"], owner: Owner) -> Float[Tensor, "*at D_i"]:
        """Return the numbers of rows, or of padded queries, that belong to ``owner``."""
        before, after = self._widths_around(owner)
        return rows[..., before : rows.shape[-1] - after]

    def parts(self, rows: Float[Tensor, "Z D"]) -> list[Float[Tensor, "Z _"]]:
        """Split rows into the numbers of each tower."""
        return list(rows.split([tower.dimension for tower in self.towers], dim=-1))

    def semantic_parts(self, rows: Float[Tensor, "Z D"]) -> list[Float[Tensor, "Z _"]]:
        """Return the numbers of each tower that training can change: all but those of a lexical projection."""
        return [part[:, : tower.semantic_dimension] for part, tower in zip(self.parts(rows), self.towers, strict=True)]

    def fingerprint(self) -> str:
        """Return a hash of all that decides a row except the passage's text, the weights included."""
        prints = [tower.fingerprint() for tower in self.towers]
        return prints[0] if len(prints) == 1 else fingerprint(prints)

    def _widths_around(self, owner: Owner) -> tuple[int, int]:
        """Return how many numbers of a row come before and after those of ``owner``."""
        if self.own_posterior is None:
            return 0, 0
        first, second = (tower.dimension for tower in self.towers)
        return (0, second) if owner == "prior" else (first, 0)
