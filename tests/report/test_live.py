"""The page of a run that trains: at logged lines, not too often, and once more where it is stopped."""

from __future__ import annotations

from retrograd.report.live import LivePage
from retrograd.training.tracking.tracker import LogLine

LINE = LogLine("training", 1, 10, {"loss": 1.0})


class Clock:
    """A clock that the test sets; each written page takes ``cost`` seconds of it."""

    def __init__(self, cost: float) -> None:
        self.now = 100.0
        self.cost = cost
        self.pages: list[float] = []

    def __call__(self) -> float:
        return self.now

    def write(self) -> None:
        self.pages.append(self.now)
        self.now += self.cost


def test_pages_are_at_least_five_seconds_apart() -> None:
    clock = Clock(cost=0.0)
    page = LivePage(clock.write, clock)
    for _ in range(20):
        page.log(LINE)
        clock.now += 1.0
    assert clock.pages == [100.0, 105.0, 110.0, 115.0]


def test_pages_that_are_slow_to_write_take_a_twentieth_of_the_time() -> None:
    clock = Clock(cost=2.0)
    page = LivePage(clock.write, clock)
    for _ in range(100):
        page.log(LINE)
        clock.now += 1.0
    gaps = [later - earlier for earlier, later in zip(clock.pages, clock.pages[1:], strict=False)]
    assert min(gaps) >= 40.0


def test_a_stopped_run_gets_a_last_page_and_one_that_has_ended_none() -> None:
    clock = Clock(cost=0.0)
    page = LivePage(clock.write, clock)
    page.close({"f1": 1.0})
    assert clock.pages == []
    page.close(None)
    assert clock.pages == [100.0]
