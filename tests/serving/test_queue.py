"""The queue before the model: batches of a kind, a bound, requests that nobody waits for, faults that stay alone."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection

import pytest
from tests.serving.conftest import RunFolders, Served, serving

from retrograd.serving.errors import RequestError
from retrograd.serving.queue import ModelQueue, QueueLimits
from retrograd.types import UserError


@dataclass(frozen=True, eq=False)
class Gated:
    """Work that waits at a gate; it notes the batches it got."""

    takes_several: bool = True
    gate: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    batches: list[list[object]] = field(default_factory=list)

    def run(self, items: Sequence[object]) -> Sequence[object]:
        self.batches.append(list(items))
        self.begun.set()
        assert self.gate.wait(30)
        if "bad" in items:
            raise UserError("bad")
        return [f"done {item}" for item in items]


@pytest.fixture
def queue() -> Iterator[ModelQueue]:
    own = ModelQueue(QueueLimits(waiting=4, batch=3))
    yield own
    assert own.close(30.0)


def start(queue: ModelQueue, work: Gated, first: object = "first") -> Future[object]:
    """Submit one item and wait until it is being done."""
    future = queue.submit(work, first)
    assert work.begun.wait(30)
    return future


def test_what_waits_is_done_together_in_its_order(queue: ModelQueue) -> None:
    work, other, alone = Gated(), Gated(), Gated(takes_several=False)
    first = start(queue, work)
    futures = [queue.submit(one, i) for i, one in enumerate((work, other, work, work))]
    for one in (work, other, alone):
        one.gate.set()
    assert [future.result(30) for future in (first, *futures)] == ["done first", "done 0", "done 1", "done 2", "done 3"]
    assert (work.batches, other.batches) == ([["first"], [0, 2, 3]], [[1]])
    assert [queue.submit(alone, i).result(30) for i in range(2)] == ["done 0", "done 1"]
    assert alone.batches == [[0], [1]]


def test_more_than_the_bound_is_refused_and_what_is_cancelled_leaves_room(queue: ModelQueue) -> None:
    work = Gated()
    start(queue, work)
    futures = [queue.submit(work, i) for i in range(4)]
    with pytest.raises(RequestError) as raised:
        queue.submit(work, "one too many")
    assert (raised.value.status, raised.value.retry_after) == (HTTPStatus.TOO_MANY_REQUESTS, 1)
    assert futures[1].cancel()
    last = queue.submit(work, "last")
    work.gate.set()
    assert last.result(30) == "done last"
    assert work.batches[1:] == [[0, 2, 3], ["last"]]


def test_one_fault_is_one_failure(queue: ModelQueue) -> None:
    work = Gated()
    start(queue, work)
    futures = [queue.submit(work, item) for item in ("good", "bad", "well")]
    work.gate.set()
    assert (futures[0].result(30), futures[2].result(30)) == ("done good", "done well")
    with pytest.raises(UserError, match="bad"):
        futures[1].result(30)


def submit_until_closed(queue: ModelQueue, work: Gated) -> None:
    """Submit again and again: another thread is about to close the queue."""
    for _ in range(3_000):
        queue.submit(work, 2)
        time.sleep(0.01)


def test_closed_it_does_what_waits_and_takes_nothing_more() -> None:
    queue, work = ModelQueue(QueueLimits(waiting=4_000)), Gated()
    start(queue, work)
    waiting = queue.submit(work, 1)
    closing = threading.Thread(target=queue.close, args=(30.0,))
    closing.start()
    with pytest.raises(RequestError) as raised:
        submit_until_closed(queue, work)
    assert raised.value.status == HTTPStatus.SERVICE_UNAVAILABLE
    work.gate.set()
    closing.join()
    assert waiting.result() == "done 1"


@dataclass(frozen=True)
class Short:
    """Work that forgets a result."""

    takes_several: bool = True

    def run(self, items: Sequence[object]) -> Sequence[object]:
        return [f"done {item}" for item in items if item != "forgotten"]


def test_work_that_forgets_a_result_fails_alone(queue: ModelQueue, caplog: pytest.LogCaptureFixture) -> None:
    work = Gated()
    start(queue, work)
    futures = [queue.submit(Short(), item) for item in ("good", "forgotten", "well")]
    work.gate.set()
    assert (futures[0].result(30), futures[2].result(30)) == ("done good", "done well")
    with pytest.raises(RuntimeError, match="0 results for 1 requests"):
        futures[1].result(30)
    assert queue.is_alive
    assert caplog.text.count("a request failed") == 1


def test_closing_waits_no_longer_than_it_is_told() -> None:
    queue, work = ModelQueue(QueueLimits()), Gated()
    start(queue, work)
    waiting = queue.submit(work, 1)
    assert not queue.close(0.05)
    assert waiting.cancelled()
    work.gate.set()
    assert queue.close(30.0)


def hold(served: Served, work: Gated) -> Future[object]:
    """Keep the model of a service busy until the gate is opened."""
    future = served.service.queue.submit(work, "held")
    assert work.begun.wait(30)
    return future


def test_a_full_queue_is_429_with_the_seconds_to_wait(runs: RunFolders) -> None:
    with serving(runs["questions"], waiting=2) as one, ThreadPoolExecutor(2) as clients:
        work = Gated()
        hold(one, work)
        waiting = [clients.submit(one.post, "/api/search", {"query": "what"}) for _ in range(2)]
        while len(one.service.queue) < 2:
            time.sleep(0.01)
        reply = one.post("/api/search", {"query": "what"})
        assert (reply.status, reply.headers["retry-after"]) == (429, "1")
        streamed = {"model": "questions", "stream": True, "messages": [{"role": "user", "content": "what"}]}
        assert one.post("/v1/chat/completions", streamed).status == 429
        work.gate.set()
        assert [future.result().status for future in waiting] == [200, 200]


def test_a_request_that_waits_too_long_is_504_and_dropped(runs: RunFolders) -> None:
    with serving(runs["questions"], seconds=0.2) as one:
        work = Gated()
        hold(one, work)
        reply = one.post("/api/search", {"query": "what"})
        assert reply.status == 504
        assert "0.2 seconds" in reply.message
        work.gate.set()
        assert one.post("/api/search", {"query": "what"}).status == 200
        batches = one.get("/metrics").body.decode()
        assert "retrograd_batches_total 2\n" in batches  # the held one and the last


def test_the_request_of_a_killed_client_is_dropped(runs: RunFolders) -> None:
    with serving(runs["questions"]) as one:
        work = Gated()
        hold(one, work)
        connection = HTTPConnection("127.0.0.1", one.port, timeout=30)
        connection.request("POST", "/api/search", json.dumps({"query": "a"}), {"content-type": "application/json"})
        while len(one.service.queue) == 0:
            time.sleep(0.01)
        connection.close()
        while 'status="499"' not in one.get("/metrics").body.decode():
            time.sleep(0.01)
        work.gate.set()
        assert one.post("/api/search", {"query": "what"}).status == 200
        metrics = one.get("/metrics").body.decode()
        assert 'retrograd_requests_total{endpoint="/api/search",status="499"} 1' in metrics
        assert "retrograd_batches_total 2\n" in metrics


def test_a_stop_in_mid_request_finishes_what_runs_and_what_waits(runs: RunFolders) -> None:
    with serving(runs["questions"]) as one, ThreadPoolExecutor(2) as clients:
        work = Gated()
        hold(one, work)
        waiting = [clients.submit(one.post, "/api/search", {"query": "what"}) for _ in range(2)]
        while len(one.service.queue) < 2:
            time.sleep(0.01)
        one.stop()
        while True:  # until nobody listens any more
            try:
                socket.create_connection(("127.0.0.1", one.port), timeout=30).close()
            except ConnectionError:
                break
            time.sleep(0.01)
        work.gate.set()
        assert [future.result().status for future in waiting] == [200, 200]


def test_health_is_that_of_the_models_thread(runs: RunFolders) -> None:
    with serving(runs["questions"]) as one:
        assert one.get("/health").record == {"status": "ok", "waiting": 0}
        assert one.service.queue.close(30.0)
        reply = one.get("/health")
        assert (reply.status, "thread has ended" in reply.message) == (503, True)


def test_a_body_has_a_limit_and_a_time(runs: RunFolders) -> None:
    with serving(runs["questions"], seconds=0.3) as one:
        large = json.dumps({"query": "a" * 2**20})
        reply = one.request("POST", "/api/search", large, {"content-type": "application/json"})
        assert reply.status == 413
        assert "1,048,576 bytes" in reply.message
        connection = HTTPConnection("127.0.0.1", one.port, timeout=30)
        connection.putrequest("POST", "/api/search")
        connection.putheader("content-type", "application/json")
        connection.putheader("content-length", "100")
        connection.endheaders(b'{"query"')
        assert connection.getresponse().status == 408
        connection.close()
