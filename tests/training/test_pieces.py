"""Check the order of visits, and the health line."""

from __future__ import annotations

import pytest
import torch

from retrograd.training.monitoring.health import format_health
from retrograd.training.sampling.batches import BatchOrder


def test_every_example_is_visited_once_an_epoch() -> None:
    order = BatchOrder(10, 4, 3, torch.Generator().manual_seed(0))
    steps, batches = zip(*order.from_step(0), strict=True)
    assert steps == tuple(range(9))
    assert order.steps == 9
    for epoch in range(3):
        visited = torch.cat(batches[3 * epoch : 3 * epoch + 3]).tolist()
        assert sorted(visited) == list(range(10))
    assert batches[0].tolist() != batches[3].tolist()


@pytest.mark.parametrize("stop", range(10))
def test_an_order_goes_on_where_it_was_left(stop: int) -> None:
    """Resume an order while something else draws from the same source at each step, as sampling does."""

    def visits(order: BatchOrder, first: int, rng: torch.Generator) -> list[tuple[int, list[int], float]]:
        return [(s, p.tolist(), float(torch.rand((), generator=rng))) for s, p in order.from_step(first)]

    rng = torch.Generator().manual_seed(0)
    whole = visits(BatchOrder(10, 4, 3, rng), 0, rng)
    rng = torch.Generator().manual_seed(0)
    order, before = BatchOrder(10, 4, 3, rng), []
    steps = order.from_step(0)
    while len(before) < stop:
        step, positions = next(steps)
        before.append((step, positions.tolist(), float(torch.rand((), generator=rng))))
    later = torch.Generator()
    later.set_state(rng.get_state())
    again = BatchOrder(10, 4, 3, later)
    again.epoch_start = order.epoch_start
    assert before + visits(again, stop, later) == whole


def test_the_health_line_shows_what_there_is() -> None:
    line = format_health("training", 3, 9, {"loss": 1.25, "acceptance": 0.5, "unknown": 3.0})
    assert line == "training 3/9 · loss 1.250 · acceptance 50%"
