"""An index that nobody here has heard of: the model goes by what it declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from jaxtyping import Float, Int
from tests.rag.test_rag_model import build, seeded
from torch import Tensor

from retrograd.index.protocol import Index, LogNormaliser, Neighbours
from retrograd.rag.rag_model import RagModel
from retrograd.rag.search import RetrievalOptions
from retrograd.rag.staleness import Probe, describe_index_fault, measure_drift
from retrograd.types import UserError


class SortingIndex:
    """Scores and sorts all rows; can neither be moved nor saved."""

    log_z: LogNormaliser = "none"
    samples_exactly = False
    moves_rows = False
    keeps_embeddings = False
    is_spread = False
    saves_with_model = False

    def __init__(self, model: RagModel) -> None:
        self.base_fingerprint = model.base.fingerprint
        self.encoder_fingerprint = model.passage_fingerprint()
        self._vectors = model.index.vectors(torch.arange(len(model.base)))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def held_rows(self) -> Sequence[int]:
        return range(len(self))

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        score = query.detach() @ self._vectors.T
        if exclude is not None:
            hidden = (torch.arange(len(self)).view(1, -1, 1) == exclude.unsqueeze(1)).any(dim=-1)
            score = score.masked_fill(hidden, -torch.inf)
        logit, row = score.topk(k, dim=-1)
        return Neighbours(row.masked_fill(logit == -torch.inf, -1), logit, None)

    def vectors(self, row: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape D"]:
        return self._vectors[row.clamp(min=0)].masked_fill((row < 0).unsqueeze(-1), 0.0)


class SamplingIndex(SortingIndex):
    """The same, which also draws rows."""

    samples_exactly = True

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        found = self.search(query, len(self), exclude)
        return found.row.gather(1, found.logit.softmax(dim=-1).multinomial(draws, replacement=True, generator=rng))


class ScriptedIndex(SamplingIndex):
    """The same, whose vectors are ``older`` than the model's, whose log Z is known, and whose next draw is given."""

    log_z = "exact"

    def __init__(self, model: RagModel, older: Float[Tensor, "N D"]) -> None:
        super().__init__(model)
        self._vectors = older
        self.next_draw = 0

    def logits(self, query: Float[Tensor, "B D"], exclude: Int[Tensor, "B E"]) -> Float[Tensor, "B N"]:
        score = query.detach() @ self._vectors.T
        hidden = (torch.arange(len(self)).view(1, -1, 1) == exclude.unsqueeze(1)).any(dim=-1)
        return score.masked_fill(hidden, -torch.inf)

    def search(self, query: Float[Tensor, "B D"], k: int, exclude: Int[Tensor, "B E"] | None = None) -> Neighbours:
        assert exclude is not None
        nearest = super().search(query, k, exclude)
        return replace(nearest, log_normaliser=self.logits(query, exclude).logsumexp(-1))

    def sample(
        self, query: Float[Tensor, "B D"], draws: int, rng: torch.Generator, exclude: Int[Tensor, "B E"] | None = None
    ) -> Int[Tensor, "B M"]:
        return torch.full((len(query), draws), self.next_draw)


def test_a_tail_drawn_from_older_embeddings_is_weighed_by_them(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    """Over all draws the candidates stand for the base as the trained tower embeds it now: Σ exp(s') exactly."""
    model, examples = build(tiny_encoder, tiny_seq2seq, trained="both", posterior=False)
    now = model.index.vectors(torch.arange(len(model.base)))
    older = now + 0.1 * torch.randn(now.shape, generator=seeded())
    index = ScriptedIndex(model, older)
    model.use_index(index)
    example, excluded = examples[:1], model.own_rows(examples[:1])
    query = model.retriever.queries([model.task.query_text(example[0])]).detach()
    stored, head = index.logits(query, excluded), index.search(query, 2, excluded).row
    tail = stored.scatter(1, head, -torch.inf)
    mean = 0.0
    for row in tail.isfinite().nonzero()[:, 1].tolist():
        index.next_draw = row
        candidates = model.retrieve(example, 2, RetrievalOptions(tail=1), rng=seeded())
        assert candidates.scores.log_multiplicity is not None
        represented = (query @ now[candidates.rows[0]].T + candidates.scores.log_multiplicity).exp().sum()
        mean += float(tail.softmax(-1)[0, row] * represented)
    allowed = index.logits(query, excluded).isfinite()
    expected = float((query @ now.T).exp()[allowed].sum())
    assert mean == pytest.approx(expected, rel=64 * torch.finfo(torch.float32).eps)


def test_a_new_index_is_searched_and_asked_for_nothing_that_it_cannot_do(
    tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    exact = model.retrieve(examples, 3)
    index = SortingIndex(model)
    assert isinstance(index, Index)
    model.use_index(index)
    found = model.retrieve(examples, 3)
    assert torch.equal(found.rows, exact.rows)
    torch.testing.assert_close(found.scores.log_prior.exp().sum(-1), torch.ones(6))  # over the candidates: no log Z
    assert describe_index_fault(model) is None
    with pytest.raises(UserError, match="SortingIndex may store approximations"):
        measure_drift(model, Probe.draw(index.held_rows, examples, 3, 3, 1, seeded()).rows)
    for refresh in (model.refresh_index, lambda: model.refresh_rows(torch.tensor([0]))):
        with pytest.raises(UserError, match="SortingIndex cannot be refreshed here"):
            refresh()
    with pytest.raises(UserError, match=r"training\.tail needs an exact index"):
        model.retrieve(examples, 2, RetrievalOptions(tail=3), rng=seeded())
    model.save(tmp_path / "model")
    assert not RagModel.load(tmp_path / "model", model.task, model.base, "").has_index


def test_a_new_index_that_samples_gives_a_tail(tiny_encoder: Path, tiny_seq2seq: Path) -> None:
    model, examples = build(tiny_encoder, tiny_seq2seq)
    model.use_index(SamplingIndex(model))
    found = model.retrieve(examples, 2, RetrievalOptions(tail=3), rng=seeded())
    assert found.scores.log_multiplicity is not None
    assert all(b not in rows for b, rows in enumerate(found.rows.tolist()))
