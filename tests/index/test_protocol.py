"""Every index does what its attributes declare, because training asks for these and never for the class."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.estimated import estimate_log_normaliser
from retrograd.index.exact import ExactIndex
from retrograd.index.faiss import FaissIndex
from retrograd.index.protocol import (
    Index,
    can_sample,
    can_save_with_model,
    has_estimated_log_z,
    has_movable_rows,
    is_spread_over_ranks,
)
from retrograd.index.restricted import RestrictedIndex

NAMES = {"base_fingerprint": "base", "encoder_fingerprint": "encoder"}
HELD = [1, 2, 5]


def exact(vectors: Float[Tensor, "N D"]) -> Index:
    return ExactIndex(vectors, **NAMES)


def gathered(vectors: Float[Tensor, "N D"]) -> Index:
    return RestrictedIndex(ExactIndex(vectors, **NAMES), torch.tensor(HELD), gather=True)


def masked(vectors: Float[Tensor, "N D"]) -> Index:
    return RestrictedIndex(ExactIndex(vectors, **NAMES), torch.tensor(HELD), gather=False)


def approximate(vectors: Float[Tensor, "N D"]) -> Index:
    pytest.importorskip("faiss")
    return FaissIndex(vectors, **NAMES)


@pytest.mark.parametrize("make", [exact, gathered, masked, approximate])
def test_an_index_does_what_it_declares(
    make: Callable[[Float[Tensor, "N D"]], Index], tmp_path: Path, rng: torch.Generator
) -> None:
    vectors, query = torch.randn(8, 3, generator=rng), torch.randn(4, 3, generator=rng)
    index = make(vectors)
    assert isinstance(index, Index)
    rows = list(index.held_rows)
    assert rows == (HELD if len(index) == len(HELD) else list(range(8)))
    log_z = index.search(query, 2).log_normaliser
    assert (log_z is None) == (index.log_z != "exact")
    if index.log_z == "exact":
        torch.testing.assert_close(log_z, (query @ vectors[rows].T).logsumexp(dim=-1))
    if has_estimated_log_z(index):
        assert rows == list(range(8))
        known = index.search(query, 2).row
        estimate = estimate_log_normaliser(index, query, known, len(rows), rng)  # nothing is left to draw
        torch.testing.assert_close(estimate.value, (query @ vectors.T).logsumexp(dim=-1))
        assert 0 <= index.recall <= 1
    if can_sample(index):
        assert set(index.sample(query, 50, rng).flatten().tolist()) <= set(rows)
    if index.keeps_embeddings:
        torch.testing.assert_close(index.vectors(torch.tensor(rows)), vectors[rows], rtol=0, atol=0)
    assert not is_spread_over_ranks(index)
    if can_save_with_model(index):
        index.save(tmp_path / "index")
        assert (tmp_path / "index" / "manifest.json").exists()
    if has_movable_rows(index):
        index.replace(torch.tensor([rows[0]]), torch.ones(1, 3, dtype=index.dtype), "other")
        assert index.vectors(torch.tensor(rows[:1])).tolist() == [[1.0] * 3]
        assert index.encoder_fingerprint == "other"


def test_only_what_is_exact_moves_and_only_that_is_kept_in_a_models_folder() -> None:
    vectors = torch.eye(8)
    moves = [has_movable_rows(make(vectors)) for make in (exact, gathered, masked)]
    saves = [can_save_with_model(make(vectors)) for make in (exact, gathered, masked)]
    assert moves == saves == [True, False, False]
