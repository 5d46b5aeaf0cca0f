"""The service: its runs, the queue before their models, its limits, and how a request waits for an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from retrograd.serving.errors import RequestError
from retrograd.serving.metrics import Metrics
from retrograd.serving.queue import Batch, ModelQueue, QueueLimits
from retrograd.serving.requests import parse_body
from retrograd.serving.security import AccessRules
from retrograd.serving.served_run import ServedRun
from retrograd.types import UserError
from retrograd.util.guards import JsonObject, suggest_name

__all__ = ["Service", "ServiceSettings", "json_response", "read_body"]

Receive = Callable[[], Awaitable[MutableMapping[str, object]]]


@dataclass(frozen=True)
class ServiceSettings:
    """The limits of a service: seconds for an answer, bytes of a body; and what it may do.

    With ``feedback`` verdicts are kept in the runs' folders.
    """

    access: AccessRules = field(default_factory=AccessRules)
    queue: QueueLimits = field(default_factory=QueueLimits)
    seconds: float = 60.0
    body_bytes: int = 2**20
    feedback: bool = False


class Service:
    """Runs that are served; ``watched`` is the folder of a run whose curves are shown, finished or not."""

    def __init__(self, runs: tuple[ServedRun, ...], settings: ServiceSettings, watched: Path | None = None) -> None:
        self.runs = runs
        self.settings = settings
        self.watched = watched
        self.metrics = Metrics()
        self.queue = ModelQueue(settings.queue, self.metrics.add_batch)

    def run(self, name: str) -> ServedRun:
        """Return the run of that name, of "" the first. Raises `RequestError` where there is none."""
        if not self.runs:
            raise RequestError(HTTPStatus.NOT_FOUND, "no run is served: only the curves of a training are shown")
        for run in self.runs:
            if name in ("", run.name):
                return run
        advice = suggest_name(name[:100], self.names)
        raise RequestError(HTTPStatus.NOT_FOUND, f"no run is named {name[:100]!r}; {advice}")

    @property
    def names(self) -> list[str]:
        """Return the names of the runs, the first one's first."""
        return [run.name for run in self.runs]

    async def ask(self, request: Request, batch: Batch, item: object) -> object:
        """Return what the model makes of an item. Raises `RequestError` where it takes too long, or nobody waits.

        A request whose client has gone is dropped unless it is being done.
        """
        return await self.wait(request.receive, self.queue.submit(batch, item))

    async def wait(self, receive: Receive, future: Future[object]) -> object:
        """Return the result of what is in the queue. Raises as `ask`."""
        answer = asyncio.wrap_future(future)
        gone = asyncio.ensure_future(wait_until_gone(receive))
        try:
            await asyncio.wait({answer, gone}, timeout=self.settings.seconds, return_when=asyncio.FIRST_COMPLETED)
            if answer.done():
                return answer.result()
            if gone.done():
                raise ClientDisconnect
            seconds = f"{self.settings.seconds:g} seconds"
            raise RequestError(HTTPStatus.GATEWAY_TIMEOUT, f"there was no answer in {seconds}; try again later", 5)
        finally:
            answer.cancel()
            gone.cancel()


async def wait_until_gone(receive: Receive) -> None:
    """Return when the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass


def json_response(record: object, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a response of strict JSON: no NaN, no infinity."""
    content = json.dumps(record, ensure_ascii=False, allow_nan=False)
    return Response(content, status, headers, media_type="application/json")


async def read_body(request: Request, settings: ServiceSettings) -> JsonObject:
    """Return the JSON object that a request brings.

    Raises `RequestError` for another content type, a body that is too large or takes too long, and one that is no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"Content-Type is {kind[:100]!r}; expected 'application/json'"
        )
    try:
        async with asyncio.timeout(settings.seconds):
            body = await _read_bytes(request, settings.body_bytes)
    except TimeoutError:
        raise RequestError(HTTPStatus.REQUEST_TIMEOUT, f"no whole body came in {settings.seconds:g} seconds") from None
    try:
        return parse_body(body)
    except UserError as error:
        raise RequestError(HTTPStatus.BAD_REQUEST, str(error)) from None


async def _read_bytes(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise RequestError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the body has more than {most:,} bytes, which is the most"
            )
    return bytes(body)
