"""Who may ask: the Host header, the Origin, the token; and headers that keep a page to its own origin.

A browser sends requests to this service for any page that somebody has open. Three things keep such pages out:

- A page of another site says so in ``Origin``, and is refused.
- A name that was pointed at this machine afterwards (DNS rebinding) stands in ``Host``, and is refused unless it was
  allowed.
- Whatever writes needs a JSON content type, which a page cannot send to another origin without being asked about it
  first; no response ever permits that (no CORS headers).
"""

from __future__ import annotations

import hmac
import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from retrograd.serving.errors import RequestError

__all__ = ["RESPONSE_HEADERS", "AccessRules", "is_loopback", "is_public"]

RESPONSE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Return whether a host to listen at can be reached from this machine alone."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


@dataclass(frozen=True)
class AccessRules:
    """``host`` is where the service listens; ``names`` are further names that may stand in ``Host``.

    A ``token``, unless it is "", must come with every request but those for the explorer's own files and ``/health``,
    which hold nothing of the run.
    """

    host: str = "127.0.0.1"
    token: str = ""
    names: tuple[str, ...] = ()

    def check(self, path: str, headers: Headers) -> None:
        """Raise `RequestError` for a request that may not be answered."""
        self._check_host(headers)
        self._check_origin(headers)
        if self.token and not is_public(path):
            self._check_token(headers.getlist("authorization"))

    def _check_host(self, headers: Headers) -> None:
        hosts = headers.getlist("host")
        name = _host_name(hosts[0]) if len(hosts) == 1 else None
        if name is None or not self._is_allowed(name):
            shown = hosts[0][:100] if hosts else ""
            raise RequestError(
                HTTPStatus.FORBIDDEN,
                f"the Host header is {shown!r}, under which this service is not known; "
                f"name it with --allow-host when the service is started",
            )

    def _is_allowed(self, name: str) -> bool:
        if name in ("localhost", self.host.lower(), *(own.lower() for own in self.names)):
            return True
        address = _address(name)
        # No name was pointed anywhere where there is none, so that any address will do, if others may come at all.
        return address is not None and (address.is_loopback or not is_loopback(self.host))

    def _check_origin(self, headers: Headers) -> None:
        for origin in headers.getlist("origin"):
            scheme, _, place = origin.lower().partition("://")
            if scheme not in ("http", "https") or place != headers.get("host", "").lower():
                raise RequestError(HTTPStatus.FORBIDDEN, "pages of other origins may not use this service")

    def _check_token(self, values: Iterable[str]) -> None:
        sent = [value.partition(" ") for value in values]
        tokens = [token.strip().encode() for scheme, _, token in sent if scheme.lower() == "bearer"]
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self.token.encode()):
            raise RequestError(
                HTTPStatus.UNAUTHORIZED, "this service needs its token, as a header: Authorization: Bearer TOKEN"
            )


def is_public(path: str) -> bool:
    """Return whether a path is answered without a token."""
    return path in ("/", "/health") or path.startswith("/static/")


def _host_name(host: str) -> str | None:
    """Return the name in a Host header, without port and brackets; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port
    except ValueError:
        return None
    if parts.username is not None or parts.path or parts.query or parts.fragment:
        return None
    return parts.hostname


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
