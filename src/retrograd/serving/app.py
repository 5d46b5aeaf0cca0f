"""The routes of the service, and what happens before and after each of them: access, errors, headers, counts."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from retrograd.serving import api, chat, explorer
from retrograd.serving.errors import RequestError, as_request_error
from retrograd.serving.security import RESPONSE_HEADERS
from retrograd.serving.service import Service, json_response
from retrograd.types import UserError

__all__ = ["create_app"]

_LOG = logging.getLogger("retrograd.serving")

Endpoint = Callable[[Service, Request], Awaitable[Response]]

_ENDPOINTS: tuple[tuple[str, str, Endpoint], ...] = (
    ("GET", "/", explorer.page),
    ("GET", "/static/{name}", explorer.static_file),
    ("GET", "/api/runs", explorer.runs),
    ("GET", "/api/curves", explorer.curves),
    ("POST", "/api/examples", explorer.examples),
    ("POST", "/api/weights", explorer.weights),
    ("POST", "/api/feedback", explorer.feedback),
    ("GET", "/health", api.health),
    ("GET", "/metrics", api.metrics),
    ("POST", "/api/search", api.search),
    ("POST", "/api/answer", api.answer),
    ("POST", "/api/embed", api.embed),
    ("GET", "/v1/models", chat.models),
    ("POST", "/v1/chat/completions", chat.chat_completions),
    ("POST", "/v1/embeddings", chat.embeddings),
)
"""All endpoints: method, path, and what answers."""

_GONE = 499
"""The status that is counted where the client has closed the connection."""
_LAST_SECONDS = 5.0
"""How long the end waits for a computation that no client waits for any more."""
_STATIC = "/static/"


def create_app(service: Service) -> Starlette:
    """Return the application. Its end is that of the queue, whose clients have been answered or dropped by then."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        if not service.queue.close(_LAST_SECONDS):
            _LOG.warning("a computation that nobody waits for any more is broken off")

    return Starlette(
        routes=[Route(path, partial(endpoint, service), methods=[method]) for method, path, endpoint in _ENDPOINTS],
        exception_handlers={
            RequestError: _answer_error,
            UserError: _answer_error,
            HTTPException: _answer_error,
            ClientDisconnect: _answer_error,
        },
        middleware=[Middleware(_Guard, service=service)],
        lifespan=lifespan,
    )


class _Guard:
    """Check who asks, before anything is read; add headers to every response, and count it."""

    def __init__(self, app: ASGIApp, service: Service) -> None:
        self._app = app
        self._service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, statuses = time.perf_counter(), [_GONE]

        async def send_on(message: Message) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])
                MutableHeaders(scope=message).update(RESPONSE_HEADERS)
            await send(message)

        try:
            try:
                self._service.settings.access.check(scope["path"], Headers(scope=scope))
                await self._app(scope, receive, send_on)
            except Exception as error:
                failure = as_request_error(error)
                if statuses[-1] == _GONE:  # nothing was sent yet
                    await _respond(failure)(scope, receive, send_on)
        finally:
            self._service.metrics.add_request(_route(scope["path"]), statuses[-1], time.perf_counter() - start)


def _route(path: str) -> str:
    """Return the path of an endpoint as it is counted: one for all files of the page, and one for what is none."""
    if path.startswith(_STATIC):
        return f"{_STATIC}{{name}}"
    return path if any(path == known for _, known, _ in _ENDPOINTS) else "other"


async def _answer_error(request: Request, error: Exception) -> Response:
    """Return what a client is told of an error."""
    if isinstance(error, RequestError | UserError):
        return _respond(as_request_error(error))
    if isinstance(error, HTTPException):
        allowed = (error.headers or {}).get("Allow", "")
        message = {
            404: "there is nothing at this path; docs/serving.md lists the endpoints",
            405: f"this path does not take {request.method[:20]}; use {allowed}",
        }.get(error.status_code, error.detail)
        response = _respond(RequestError(HTTPStatus(error.status_code), message))
        response.headers.update(error.headers or {})
        return response
    return Response(status_code=_GONE)


def _respond(error: RequestError) -> Response:
    headers = error.headers()
    if error.status == HTTPStatus.UNAUTHORIZED:
        headers["www-authenticate"] = "Bearer"
    return json_response(error.record(), error.status, headers)
