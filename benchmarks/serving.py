"""Load on ``retrograd serve``: many clients for a while on the loopback, every answer compared with the offline one.

    python benchmarks/serving.py runs/questions --clients 32 --seconds 60

The run is opened in this process first and asked every query by itself, which gives the answers to compare with. Then
the service is started as a process of its own, and asked by threads that each keep one connection: searches, answers,
embeddings, and chats of OpenAI's API, in equal shares, with queries of the run's own training and test data. A request
is lost if it gets no response or one that is no success. Its response differs if it is not the offline one: in bf16
what else is in a batch may turn a near tie. Such a one is mixed up if it is what another query would get.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from math import hypot
from pathlib import Path
from typing import Any

from retrograd.experiments.open import OpenRun, open_run
from retrograd.serving.task_words import typed_query

ENDPOINTS = ("/api/search", "/api/answer", "/api/embed", "/v1/chat/completions")
_SHOWN = 5
CLOSE = 0.999
"""The least cosine of an embedding of a padded batch with that of the single text."""


@dataclass(frozen=True)
class Question:
    """A request, and what tells whether its response is right."""

    endpoint: str
    body: dict[str, Any]
    expected: Any


@dataclass
class Tally:
    """Seconds by endpoint, and what went wrong."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {one: [] for one in ENDPOINTS})
    lost: int = 0
    mixed_up: int = 0
    different: list[str] = field(default_factory=list)


def questions_of(run: OpenRun, name: str, queries: list[str]) -> list[Question]:
    """Return every query for every endpoint, with what the model answers when it is asked by itself."""
    made: list[Question] = []
    model, passages = run.model, run.experiment.test_passages
    for query in queries:
        example = run.task.parse_query(query)
        answer = model.predict([example], passages, run.experiment.evaluation.scoring)[0].answer
        hits = [hit.passage.id for hit in model.search(example, 5)]
        vector = model.retriever.query_encoder.embed([run.task.query_text(example)], "query")[0].tolist()
        messages = [{"role": "user", "content": query}]
        made += [
            Question("/api/search", {"query": query, "k": 5}, hits),
            Question("/api/answer", {"query": query}, answer),
            Question("/api/embed", {"texts": [query]}, vector),
            Question("/v1/chat/completions", {"model": name, "messages": messages}, answer),
        ]
    return made


def content_of(endpoint: str, record: dict[str, Any]) -> Any:
    """Return what a response says: ids of passages, an answer, or an embedding."""
    match endpoint:
        case "/api/search":
            return [one["id"] for one in record["passages"]]
        case "/api/answer":
            return record["answer"]
        case "/api/embed":
            return record["embeddings"][0]
        case _:
            return record["choices"][0]["message"]["content"]


def is_equal(endpoint: str, own: Any, expected: Any) -> bool:
    """Return whether what a response says is what was expected."""
    if endpoint != "/api/embed":
        return own == expected
    return sum(one * other for one, other in zip(own, expected, strict=True)) >= CLOSE * hypot(*own) * hypot(*expected)


def client(port: int, seed: int, questions: list[Question], until: float, tally: Tally) -> None:
    """Ask one question after the other over one connection."""
    rng = random.Random(seed)
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    while time.perf_counter() < until:
        question = rng.choice(questions)
        start = time.perf_counter()
        try:
            connection.request(
                "POST", question.endpoint, json.dumps(question.body), {"content-type": "application/json"}
            )
            response = connection.getresponse()
            content = response.read()
        except (HTTPException, OSError):
            tally.lost += 1
            connection.close()
            continue
        tally.seconds[question.endpoint].append(time.perf_counter() - start)
        if response.status != 200:
            tally.lost += 1
            continue
        said = content_of(question.endpoint, json.loads(content))
        if not is_equal(question.endpoint, said, question.expected):
            tally.different.append(f"{question.endpoint} {question.body}: {said} instead of {question.expected}")
            others = (one for one in questions if one.endpoint == question.endpoint and one is not question)
            tally.mixed_up += any(is_equal(one.endpoint, said, one.expected) for one in others)
    connection.close()


def memory(process: subprocess.Popen[str]) -> float:
    """Return the main memory of a process in MB."""
    return int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) * 4096 / 1e6


def watch_memory(process: subprocess.Popen[str], every: float, is_over: threading.Event, samples: list[float]) -> None:
    """Note the memory of a process at the beginning, every few seconds, and at the end."""
    while True:
        samples.append(memory(process))
        if is_over.wait(every):
            samples.append(memory(process))
            return


def run_load(port: int, questions: list[Question], clients: int, seconds: float) -> tuple[list[Tally], float]:
    """Return the tallies of all clients, and the seconds that passed."""
    tallies = [Tally() for _ in range(clients)]
    start = time.perf_counter()
    threads = [
        threading.Thread(target=client, args=(port, i, questions, start + seconds, tally))
        for i, tally in enumerate(tallies)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tallies, time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--queries", type=int, default=50, help="distinct queries of the run's data, at most")
    options = parser.parse_args()
    run = open_run(options.run)
    own = [*run.data.train, *run.data.test]
    queries = list(dict.fromkeys(typed_query(run.task, example.query) for example in own))[: options.queries]
    questions = questions_of(run, options.run.resolve().name, queries)
    words = [sys.executable, "-m", "retrograd", "serve", str(options.run), "--port", "0"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as service:
        assert service.stdout is not None
        found = re.search(r":(\d+)/", service.stdout.readline())
        assert found, "the service did not start"
        port = int(found[1])
        run_load(port, questions, options.clients, min(5.0, options.seconds / 4))  # caches and buffers fill
        samples: list[float] = []
        is_over = threading.Event()
        watcher = threading.Thread(target=watch_memory, args=(service, options.seconds / 6, is_over, samples))
        watcher.start()
        tallies, seconds = run_load(port, questions, options.clients, options.seconds)
        is_over.set()
        watcher.join()
        service.terminate()
        service.wait(60)
    report(tallies, seconds, options.clients, len(queries))
    shown = ", ".join(f"{sample:.0f}" for sample in samples)
    print(f"memory of the service in MB, from begin to end: {shown}; it ended with {service.returncode}")


def report(tallies: list[Tally], seconds: float, clients: int, queries: int) -> None:
    """Print what was measured."""
    print(f"{clients} clients for {seconds:.1f} s, {queries} distinct queries")
    print(f"{'endpoint':<24} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8}")
    every: list[float] = []
    for endpoint in ENDPOINTS:
        taken = sorted(value for tally in tallies for value in tally.seconds[endpoint])
        every += taken
        print(
            f"{endpoint:<24} {len(taken) / seconds:>10.1f} {percentile(taken, 50):>8.1f} {percentile(taken, 99):>8.1f}"
        )
    every.sort()
    print(f"{'all':<24} {len(every) / seconds:>10.1f} {percentile(every, 50):>8.1f} {percentile(every, 99):>8.1f}")
    lost, mixed_up = sum(one.lost for one in tallies), sum(one.mixed_up for one in tallies)
    different = [one for tally in tallies for one in tally.different]
    print(f"{len(every)} requests, {lost} lost, {len(different)} different, of these {mixed_up} mixed up")
    for one in different[:_SHOWN]:
        print(f"  {one[:200]}")


def percentile(ordered: list[float], percent: int) -> float:
    """Return a percentile of ordered seconds, in milliseconds; NaN of none."""
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else float("nan")


if __name__ == "__main__":
    main()
