"""No web page can read or write, and beyond this machine nobody without the token."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from starlette.datastructures import Headers
from tests.serving.conftest import RunFolders, Served, serving

from retrograd.serving.errors import RequestError
from retrograd.serving.security import AccessRules, is_loopback
from retrograd.serving.start import StartOptions
from retrograd.types import UserError


@pytest.fixture(scope="module")
def guarded(runs: RunFolders) -> Iterator[Served]:
    with serving(runs["questions"], token="a-token") as one:
        yield one


def test_a_token_is_needed_for_all_but_the_page_and_health(guarded: Served) -> None:
    stranger = Served(guarded.service, guarded.port)
    for path in ("/", "/static/explorer.js", "/health"):
        assert stranger.get(path).status == 200
    for path in ("/api/runs", "/metrics", "/v1/models", "/nowhere", "/api/curves"):
        reply = stranger.get(path)
        assert (reply.status, reply.headers["www-authenticate"]) == (401, "Bearer")
    for value in ("Bearer", "Bearer wrong", "Bearer a-token x", "Basic a-token", "a-token", "Bearer é"):
        sent = value.encode("latin-1")
        assert stranger.request("GET", "/api/runs", headers={"authorization": sent}).status == 401  # pyright: ignore
    assert guarded.get("/api/runs").status == 200
    assert stranger.post("/api/search", {"query": "what"}).status == 401
    assert guarded.post("/api/search", {"query": "what"}).status == 200
    assert "a-token" not in guarded.get("/api/runs").body.decode()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "192.0.2.1", "", "a b", "user@localhost", "[::1"]
)
def test_a_foreign_host_is_refused(served: Served, host: str) -> None:
    assert served.get("/health", {"host": host}).status in (400, 403)


def test_names_of_this_machine_are_known(served: Served) -> None:
    for host in ("localhost", "127.0.0.1", f"127.0.0.1:{served.port}", "[::1]:80", "LOCALHOST"):
        assert served.get("/health", {"host": host}).status == 200


def test_pages_of_other_origins_are_refused(served: Served) -> None:
    own = {"origin": f"http://127.0.0.1:{served.port}"}
    assert served.post("/api/search", {"query": "what"}, own).status == 200
    for origin in ("http://evil.example", "null", f"http://127.0.0.1:{served.port + 1}", "", "http://127.0.0.1"):
        for path in ("/api/search", "/api/feedback"):
            assert served.post(path, {"query": "what"}, {"origin": origin}).status == 403
    assert not any(
        name.startswith("access-control") for name in served.post("/api/search", {"query": "a"}, own).headers
    )
    assert served.request("OPTIONS", "/api/search", headers=own).status == 405


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"])
def test_a_form_cannot_write(served: Served, kind: str) -> None:
    reply = served.request("POST", "/api/search", '{"query": "what"}', {"content-type": kind})
    assert reply.status == 415
    assert "application/json" in reply.message


def test_every_response_keeps_the_page_to_its_own_origin(served: Served) -> None:
    for reply in (served.get("/"), served.get("/nowhere"), served.get("/health", {"host": "evil.example"})):
        assert "default-src 'none'" in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert reply.headers["cache-control"] == "no-store"


def test_beyond_this_machine_addresses_and_named_hosts_are_known() -> None:
    rules = AccessRules("0.0.0.0", "a-token", ("models.example",))
    sent = {"authorization": "Bearer a-token"}
    for host in ("192.0.2.1:8080", "models.example", "localhost:80"):
        rules.check("/api/runs", Headers({**sent, "host": host}))
    with pytest.raises(RequestError, match="--allow-host"):
        rules.check("/api/runs", Headers({**sent, "host": "evil.example"}))


def test_which_hosts_are_this_machine_alone() -> None:
    assert [is_loopback(one) for one in ("127.0.0.1", "localhost", "::1", "127.1.2.3")] == [True] * 4
    assert [is_loopback(one) for one in ("0.0.0.0", "::", "192.0.2.1", "models.example")] == [False] * 4


def test_a_token_that_no_header_can_hold_is_refused() -> None:
    with pytest.raises(UserError, match="no header can"):
        StartOptions((), token="two words")
