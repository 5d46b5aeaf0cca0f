"""Errors that a client is told, each with its status of HTTP, in the shape that OpenAI's clients read."""

from __future__ import annotations

import logging
from http import HTTPStatus

from retrograd.types import UserError
from retrograd.util.guards import JsonObject

__all__ = ["RequestError", "as_request_error"]

_LOG = logging.getLogger("retrograd.serving")

_TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 429: "overloaded_error"}


class RequestError(Exception):
    """An error of a request: its status, a message that names the field, and the seconds after which to try again."""

    def __init__(self, status: HTTPStatus, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.retry_after = retry_after

    def record(self) -> JsonObject:
        """Return the body of the response."""
        kind = "server_error" if self.status >= 500 else _TYPES.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "code": self.status.phrase.lower().replace(" ", "_")}}

    def headers(self) -> dict[str, str]:
        """Return the headers of the response beside those of every one."""
        return {} if self.retry_after is None else {"retry-after": str(self.retry_after)}


def as_request_error(error: Exception) -> RequestError:
    """Return what a client is told of an error; one that is neither its own nor the service's is logged alone."""
    if isinstance(error, RequestError):
        return error
    if isinstance(error, UserError):
        return RequestError(HTTPStatus.UNPROCESSABLE_ENTITY, str(error))
    _LOG.error("a request failed", exc_info=error)
    return RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, "the service failed; its log says where")
