"""Batches, health line."""

from __future__ import annotations

import torch

from retrograd.training.batches import batches, steps_in
from retrograd.training.health import health_line


def test_every_example_is_visited_once_an_epoch() -> None:
    found = list(batches(10, 4, 3, torch.Generator().manual_seed(0)))
    assert len(found) == steps_in(10, 4, 3) == 9
    for epoch in range(3):
        visited = torch.cat(found[3 * epoch : 3 * epoch + 3]).tolist()
        assert sorted(visited) == list(range(10))
    assert found[0].tolist() != found[3].tolist()


def test_the_health_line_shows_what_there_is() -> None:
    line = health_line("training", 3, 9, {"loss": 1.25, "acceptance": 0.5, "unknown": 3.0})
    assert line == "training 3/9 · loss 1.250 · acceptance 50%"
