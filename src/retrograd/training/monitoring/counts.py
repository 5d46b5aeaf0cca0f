"""Count what training has read, and the seconds it took, over all processes that a run is trained in."""

from __future__ import annotations

import time

import torch

from retrograd.training.distributed.ranks import Ranks

__all__ = ["RunCounts"]


class RunCounts:
    """The queries and tokens that a run has trained on, and its clock.

    ``seconds`` are those since training began, evaluations and checkpoints included; what passed between the processes
    of a run that was stopped does not count. ``queries`` are visits of examples. ``tokens`` are those of the prompts
    that this rank's generator has read while it trained: a prompt counts each time that it is read.
    """

    def __init__(self) -> None:
        self.queries = 0
        self.tokens = 0
        self._started_at = time.monotonic()
        self._seconds_before = 0.0
        self._marked_at = self._started_at
        self._marked_queries = 0

    @property
    def seconds(self) -> float:
        """Return the seconds of training so far."""
        return self._seconds_before + time.monotonic() - self._started_at

    def resume(self, seconds: float, queries: int, tokens: int) -> None:
        """Continue from the counts of a checkpoint; of several ranks the first takes the tokens of all."""
        self._seconds_before, self._started_at = seconds, time.monotonic()
        self.queries, self.tokens = queries, tokens if Ranks().first else 0
        self.mark()

    def mark(self) -> None:
        """Begin a new measurement of the rate: what came before was no training."""
        self._marked_at, self._marked_queries = time.monotonic(), self.queries

    def add(self, queries: int, tokens: int) -> None:
        """Count a step that has visited so many ``queries`` on all ranks, and read so many ``tokens`` on this one."""
        self.queries += queries
        self.tokens += tokens

    def tokens_of_all(self) -> int:
        """Return the tokens that all ranks have read; all of them call it."""
        return int(Ranks().stack_numbers(torch.tensor([self.tokens])).sum())

    def values(self) -> dict[str, int | float]:
        """Return what each line of the log says of time and counts; all ranks call it."""
        return {
            "time": round(self.seconds, 3),
            "queries_seen": self.queries,
            "tokens_seen": self.tokens_of_all(),
        }

    def rate(self) -> dict[str, float]:
        """Return the queries per second since `mark`; nothing where none was visited since."""
        seconds, queries = time.monotonic() - self._marked_at, self.queries - self._marked_queries
        return {"queries_per_second": round(queries / seconds, 4)} if queries > 0 and seconds > 0 else {}
