"""Listen and answer until a signal comes: uvicorn with the limits of the service."""

from __future__ import annotations

import errno
import signal
import socket

import uvicorn
from starlette.applications import Starlette

from retrograd.types import UserError

__all__ = ["bind", "make_server", "serve_until_stopped"]

_HEADER_BYTES = 2**15
_BACKLOG = 256


def bind(host: str, port: int, may_move: bool) -> socket.socket:
    """Return a socket that listens at ``host`` and ``port``; where that is taken and it ``may_move``, at a free port.

    Raises `UserError` for a port that is taken, and for a host that this machine does not have.
    """
    try:
        return _bind(host, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and may_move:
            return _bind(host, 0)
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} of {host} is taken; choose another with --port, or 0 for a free one"
            ) from None
        raise UserError(f"cannot listen at {host}, port {port} ({error.strerror}); see --host and --port") from None


def _bind(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def make_server(app: Starlette, grace_seconds: float) -> uvicorn.Server:
    """Return a server of an application; asked to stop, it finishes what runs, for ``grace_seconds`` at most.

    It logs no requests: addresses and queries are nobody's business.
    """
    config = uvicorn.Config(
        app,
        http="h11",
        ws="none",
        loop="asyncio",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        h11_max_incomplete_event_size=_HEADER_BYTES,
        timeout_graceful_shutdown=max(1, round(grace_seconds)),
    )
    return uvicorn.Server(config)


def serve_until_stopped(app: Starlette, listener: socket.socket, grace_seconds: float) -> None:
    """Answer until SIGTERM or SIGINT."""
    # uvicorn raises the signal again when it has ended; the end was in order, so these ignore it.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    make_server(app, grace_seconds).run(sockets=[listener])
