"""``retrograd serve`` as a process: it says where it is, answers, and stops in order."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest
from tests.serving.conftest import RunFolders

from retrograd.commands.serve import serve
from retrograd.serving.server import bind
from retrograd.types import UserError


@contextmanager
def process(*words: str | Path) -> Iterator[tuple[subprocess.Popen[str], str, int]]:
    """Start the command, and yield it with what it said, and its port; end it in any case."""
    command = [sys.executable, "-m", "retrograd", "serve", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as one:
        try:
            assert one.stdout is not None
            said = one.stdout.readline()
            found = re.search(r":(\d+)/", said)
            assert found, (said, one.stderr.read() if one.stderr and one.poll() is not None else "")
            yield one, said, int(found[1])
        finally:
            one.kill()


def test_a_request_that_runs_is_finished_and_a_new_one_refused(runs: RunFolders) -> None:
    with process(runs["together"], "--port", "0") as (service, said, port):
        assert "serving together at http://127.0.0.1:" in said
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        messages = [{"role": "user", "content": "what is the cup ?"}]
        body = json.dumps({"model": "together", "messages": messages, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
        response = connection.getresponse()
        service.send_signal(signal.SIGTERM)
        assert response.read().endswith(b"data: [DONE]\n\n")
        connection.close()
        assert service.wait(60) == 0
        assert service.stderr is not None
        assert "Traceback" not in service.stderr.read()
        with pytest.raises(ConnectionError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_beyond_this_machine_a_token_is_drawn_and_asked_for(runs: RunFolders) -> None:
    with process(runs["questions"], "--host", "0.0.0.0", "--port", "0") as (service, _, port):
        assert service.stdout is not None
        token = service.stdout.readline().removeprefix("token: ").strip()
        assert f"#token={token}" in service.stdout.readline()
        for headers, status in (({}, 401), ({"authorization": f"Bearer {token}"}, 200)):
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/api/runs", headers=headers)
            assert connection.getresponse().status == status
            connection.close()
        service.send_signal(signal.SIGINT)
        _, errors = service.communicate(timeout=60)
        assert (service.returncode, token in errors) == (0, False)


def test_a_port_that_is_taken_is_left_or_named() -> None:
    taken = bind("127.0.0.1", 0, may_move=False)
    port = taken.getsockname()[1]
    try:
        with bind("127.0.0.1", port, may_move=True) as other:
            assert other.getsockname()[1] not in (0, port)
        with pytest.raises(UserError, match=f"port {port} of 127.0.0.1 is taken; choose another with --port"):
            bind("127.0.0.1", port, may_move=False)
        with pytest.raises(UserError, match="cannot listen at"):
            bind("192.0.2.1", 0, may_move=False)
    finally:
        taken.close()


def test_nothing_to_serve_is_said(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nothing to serve"):
        serve()
    with pytest.raises(UserError, match="--beside compares"):
        serve(watch=tmp_path, beside=tmp_path)
