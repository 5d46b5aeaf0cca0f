"""A thousand malformed requests: each gets an answer that is no fault of the service, which still answers then."""

from __future__ import annotations

import json
import random
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import RunFolders, Served, serving

PATHS = ("/api/search", "/api/answer", "/api/embed", "/api/feedback", "/api/examples", "/api/weights")
PATHS += ("/v1/chat/completions", "/v1/embeddings")
FIELDS = (
    "query",
    "turns",
    "k",
    "where",
    "run",
    "texts",
    "side",
    "model",
    "messages",
    "stream",
    "input",
    "example",
    "n",
)
FIELDS += ("dimensions", "encoding_format", "offset", "limit", "only", "verdict", "answer", "correction", "contains")
METHODS = ("GET", "PUT", "DELETE", "PATCH", "BREW", "HEAD", "OPTIONS", "TRACE", "get", "POST")

Request = tuple[str, str, dict[str, str], bytes]


def value(rng: random.Random, depth: int = 0) -> Any:
    """Draw a JSON value of any type."""
    plain = [
        None,
        True,
        False,
        0,
        -1,
        10**30,
        -(2**63),
        1e308,
        float("nan"),
        float("inf"),
        "",
        " ",
        "what",
        "\x00\u202e",
    ]
    plain += ["title=" + "*?" * 3000, "text=" + "*" * 150, "right", "corrected"]
    plain += ["a" * 5000, "title=*", "<e1>a</e1><e2>b</e2>", "questions", "relations", "\U0001f642", "{{7*7}}", "%s%n"]
    kind = rng.random()
    if kind < 0.7 or depth > 3:
        return rng.choice(plain)
    if kind < 0.85:
        return [value(rng, depth + 1) for _ in range(rng.randrange(4))]
    return {
        rng.choice([*FIELDS, "role", "content", "text", ""]): value(rng, depth + 1) for _ in range(rng.randrange(4))
    }


def record(rng: random.Random) -> bytes:
    return json.dumps({rng.choice(FIELDS): value(rng) for _ in range(rng.randrange(6))}).encode()


def nested(rng: random.Random) -> bytes:
    depth = rng.choice((100, 2_000, 100_000))
    return rng.choice((b'{"query":' * depth, b"[" * depth + b"]" * depth, b'{"query": ' + b"[" * depth))


def damaged(rng: random.Random) -> bytes:
    body = bytearray(record(rng))
    for _ in range(rng.randrange(1, 6)):
        body[rng.randrange(len(body))] = rng.randrange(256)
    return bytes(body[: rng.randrange(len(body) + 1)])


def odd_text(rng: random.Random) -> bytes:
    texts = (b"", b"null", b"[]", b"NaN", b'"text"', b"\xff\xfe{", b'{"query": "\\ud800"}', b'{"query": 1, "query": 2}')
    texts += (b'{"query": ' + b"9" * 6_000 + b"}", b'{"k": 1e999, "query": "a"}', b"\xef\xbb\xbf{}", b"\x00" * 50)
    return rng.choice(texts)


BODIES: tuple[Callable[[random.Random], bytes], ...] = (record, record, record, nested, damaged, odd_text)


def draw(rng: random.Random) -> Request:
    method, path = "POST", rng.choice(PATHS)
    headers = {"content-type": "application/json"}
    body = rng.choice(BODIES)(rng)
    kind = rng.random()
    if kind < 0.1:
        method = rng.choice(METHODS)
    elif kind < 0.2:
        headers["content-type"] = rng.choice(("text/html", "application/json; charset=utf-16", "", "é", "a" * 3000))
    elif kind < 0.25:
        headers["x-" + "a" * rng.randrange(1, 50)] = "b" * rng.choice((10, 5_000, 60_000))
    elif kind < 0.3:
        path = rng.choice(
            ("/%00", "/api/%2e%2e/x", "/" + "a" * 9_000, "/static/%2e%2e%2fexplorer.html", "*", "/?" + "&" * 99)
        )
    elif kind < 0.33:
        headers["content-length"] = rng.choice(("-1", "abc", "99999999999", "1e3", "5"))
    elif kind < 0.36:
        headers["transfer-encoding"] = rng.choice(("chunked", "gzip", "chunked, chunked"))
    elif kind < 0.39:
        headers["expect"] = "100-continue"
    return method, path, headers, body


def send(port: int, request: Request) -> int:
    """Return the status of the response; 0 where the connection was closed without one, as after half a request."""
    method, path, headers, body = request
    own = {"host": f"127.0.0.1:{port}", "content-length": str(len(body)), "connection": "close"} | headers
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {text}\r\n" for name, text in own.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(head.encode("utf-8") + body)
            connection.shutdown(socket.SHUT_WR)
            reply = b""
            while b"\r\n\r\n" not in reply and (more := connection.recv(65_536)):
                reply += more
                if reply.startswith(b"HTTP/1.1 100") and b"\r\n\r\n" in reply:
                    reply = reply.split(b"\r\n\r\n", 1)[1]
        except OSError:  # refused before all was sent
            return 0
    return int(reply.split(b" ", 2)[1]) if reply else 0


@pytest.fixture
def keeping(runs: RunFolders, own_run: Callable[[str], Path]) -> Iterator[Served]:
    """Serve runs of several kinds, and keep verdicts on one of them."""
    with serving(own_run("questions"), runs["relations"], runs["together"], feedback=True) as one:
        yield one


def test_a_thousand_malformed_requests_do_no_harm(keeping: Served) -> None:
    rng = random.Random(26)
    statuses: Counter[int] = Counter()
    for _ in range(1_000):
        request = draw(rng)
        status = send(keeping.port, request)
        assert status < 500, request
        statuses[status] += 1
    assert keeping.post("/api/search", {"query": "what is the cup ?"}).status == 200
    assert {400, 404, 405, 415, 422} <= statuses.keys()
    assert statuses[0] < 150, statuses
