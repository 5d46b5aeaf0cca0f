"""A bounded queue before the model: one thread owns it, and does waiting requests of one kind together.

A model is no faster for two threads, and its index and its filters are not made for them. Batches are: a forward pass
of eight short texts takes about as long as one of one.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import CancelledError, Future
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Protocol, runtime_checkable

from retrograd.serving.errors import RequestError
from retrograd.types import UserError

__all__ = ["Batch", "ModelQueue", "QueueLimits"]

_LOG = logging.getLogger("retrograd.serving")


@runtime_checkable
class Batch(Protocol):
    """A kind of work. Requests whose batches are equal are done by one call of `run`, and in their order."""

    def __hash__(self) -> int: ...

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return one result for each item."""
        ...

    @property
    def takes_several(self) -> bool:
        """Return whether several items may be given at once."""
        ...


@dataclass(frozen=True)
class QueueLimits:
    """``waiting`` requests at most; batches of at most ``batch``, for which a request waits ``gather_seconds``."""

    waiting: int = 64
    batch: int = 16
    gather_seconds: float = 0.004


@dataclass(frozen=True)
class _Job:
    batch: Batch
    item: object
    future: Future[object] = field(default_factory=Future)


class ModelQueue:
    """Requests that wait for the model, and the thread that does them.

    ``observe`` is told of every batch: its size, and the seconds it took.
    """

    def __init__(self, limits: QueueLimits, observe: Callable[[int, float], None] = lambda size, seconds: None) -> None:
        self.limits = limits
        self._observe = observe
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._is_closed = False
        self._thread = threading.Thread(target=self._work, name="retrograd-model", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._jobs)

    @property
    def is_alive(self) -> bool:
        """Return whether the model's thread runs. It ends by `close` alone, unless something is badly wrong."""
        return self._thread.is_alive()

    def submit(self, batch: Batch, item: object) -> Future[object]:
        """Put a request into the queue. Cancelled before its turn, it is dropped.

        Raises `RequestError` where the queue is full, and once it is closed.
        """
        job = _Job(batch, item)
        with self._changed:
            if self._is_closed:
                raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "the service is being stopped", 5)
            self._jobs = [one for one in self._jobs if not one.future.cancelled()]
            if len(self._jobs) >= self.limits.waiting:
                message = f"{len(self._jobs)} requests are waiting, which is the most; try again in a second"
                raise RequestError(HTTPStatus.TOO_MANY_REQUESTS, message, 1)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def close(self, seconds: float) -> bool:
        """Accept nothing more, and return whether what runs and waits was done in ``seconds``; what was not is dropped.

        A computation cannot be broken off, but its thread keeps no process alive.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify()
        self._thread.join(seconds)
        with self._changed:
            for job in self._jobs:
                job.future.cancel()
            self._jobs = []
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (jobs := self._take()) is not None:
            running = [job for job in jobs if job.future.set_running_or_notify_cancel()]
            if running:
                start = time.perf_counter()
                outcomes = _do(running)
                self._observe(len(running), time.perf_counter() - start)  # before a client can ask for the counts
                for job, outcome in zip(running, outcomes, strict=True):
                    if isinstance(outcome, Exception):
                        job.future.set_exception(outcome)
                    else:
                        job.future.set_result(outcome)

    def _take(self) -> list[_Job] | None:
        """Return the oldest request with others of its kind, a moment after it has come; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._is_closed)
            if not self._jobs:
                return None
            first = self._jobs[0].batch
            most = self.limits.batch if first.takes_several else 1
            self._changed.wait_for(lambda: self._is_closed or self._count(first) >= most, self.limits.gather_seconds)
            taken = [job for job in self._jobs if job.batch == first][:most]
            self._jobs = [job for job in self._jobs if job not in taken]
            return taken

    def _count(self, batch: Batch) -> int:
        return sum(job.batch == batch for job in self._jobs)


def _do(jobs: list[_Job]) -> list[object]:
    """Return what requests of one kind give, or the exception that each raises.

    Where they fail together each is done by itself, so that one fault is one failure.
    """
    try:
        outcomes: list[object] = [*jobs[0].batch.run([job.item for job in jobs])]
        if len(outcomes) != len(jobs):
            raise RuntimeError(f"{jobs[0].batch} gave {len(outcomes)} results for {len(jobs)} requests")
        return outcomes
    except Exception as error:
        if len(jobs) > 1:
            return [outcome for job in jobs for outcome in _do([job])]
        if not isinstance(error, (UserError, RequestError, CancelledError)):
            _LOG.exception("a request failed")
        return [error]
