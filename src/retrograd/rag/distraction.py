"""What a batch asks of the index; and retrieval for something else, as a control and as wrong neighbours to learn from.

A misled query searches with a passage drawn at random instead. Neither that passage nor an equal one is found, so what
is found looks like retrieval, label frequencies and scores included, and knows nothing of the query.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from retrograd.io import fingerprint
from retrograd.types import Example, UserError

__all__ = ["Asked", "distractors", "drawn_share", "stand_ins"]


@dataclass(frozen=True)
class Asked:
    """B queries, divided by the temperature: ``query`` is the prior's own, ``search`` what is searched with (prior,
    posterior). ``hidden`` rows are never found; -1 is padding. ``misled`` says whose search is not its own, ``alone``
    whose candidates are what the prior found and nothing else. ``accepted`` are the rows that an oracle permits each
    query, none of them hidden; where a query has none, it finds what it finds.
    """

    query: Float[Tensor, "B D"]
    search: tuple[Float[Tensor, "B D"], ...]
    hidden: Int[Tensor, "B E"]
    misled: Bool[Tensor, "B 1"] | None = None
    alone: Bool[Tensor, "B 1"] | None = None
    accepted: Sequence[Int[Tensor, " _"]] | None = None

    def instead(self, vectors: Float[Tensor, "B D"], own: Int[Tensor, "B E2"], misled: Bool[Tensor, "B 1"]) -> Asked:
        """The ``misled`` queries search with ``vectors``, and do not find the ``own`` rows of what these are."""
        first, *rest = self.search
        hidden = torch.cat([self.hidden, own.to(self.hidden.device).masked_fill(~misled, -1)], dim=1)
        return replace(self, search=(torch.where(misled, vectors, first), *rest), hidden=hidden, misled=misled)

    def settled(self, value: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
        """The value, without gradient where the search is not the query's own, or the prior's alone: neither says
        which passage explains the target."""
        for still in (self.misled, self.alone):
            if still is not None:
                value = torch.where(still.view(-1, *[1] * (value.dim() - 1)), value.detach(), value)
        return value

    def joining(self, rows: Int[Tensor, "B K"]) -> Int[Tensor, "B K"]:
        """Rows beside those that the prior found: all, but for queries whose prior stands ``alone``."""
        return rows if self.alone is None else rows.masked_fill(self.alone, -1)

    def resumed(self, row: Int[Tensor, " B"]) -> Int[Tensor, " B"]:
        """Where chains stood, as far as they may go on from there today: not in a hidden row."""
        return self.joining(row.masked_fill((row.unsqueeze(-1) == self.hidden).any(dim=-1), -1).unsqueeze(-1)).squeeze(
            -1
        )


def stand_ins(examples: Sequence[Example], hidden: Int[Tensor, "B E"], passages: int) -> Int[Tensor, " B"]:
    """A row of the base for each query, unrelated to it, the same whenever it is asked, and not of its own rows."""
    drawn = [int(fingerprint([example.query])[:12], 16) % passages for example in examples]
    return _not_hidden(torch.tensor(drawn, device=hidden.device), hidden, passages)


def distractors(
    hidden: Int[Tensor, "B E"], passages: int, share: float, rng: torch.Generator | None
) -> tuple[Bool[Tensor, "B 1"], Int[Tensor, " B"]]:
    """Which queries are misled, a ``share`` of them on average, and a random row for each, not of its own."""
    misled = drawn_share(len(hidden), share, rng)
    rows = torch.randint(passages, (len(hidden),), generator=rng)
    return misled.to(hidden.device), _not_hidden(rows.to(hidden.device), hidden, passages)


def drawn_share(queries: int, share: float, rng: torch.Generator | None) -> Bool[Tensor, "B 1"]:
    """A ``share`` of the queries on average. Raises `UserError` without a source of randomness, and outside [0, 1]."""
    if rng is None:
        raise UserError("a share of the queries is drawn at random and needs a source of randomness; pass rng")
    if not 0 <= share <= 1:
        raise UserError(f"the share is {share:g}; expected a share of the queries, from 0 to 1")
    return torch.rand(queries, 1, generator=rng) < share


def _not_hidden(rows: Int[Tensor, " B"], hidden: Int[Tensor, "B E"], passages: int) -> Int[Tensor, " B"]:
    """The next row that is not hidden, where one is: at most E rows on."""
    for _ in range(hidden.shape[1]):
        rows = torch.where((rows.unsqueeze(-1) == hidden).any(dim=-1), (rows + 1) % passages, rows)
    return rows
