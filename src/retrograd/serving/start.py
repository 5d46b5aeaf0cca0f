"""Open runs, say where they are served, and serve them until the process is asked to stop."""

from __future__ import annotations

import math
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrograd.types import UserError
from retrograd.util.optional import require_package

if TYPE_CHECKING:
    from retrograd.serving.served_run import ServedRun

__all__ = ["StartOptions", "open_runs", "start_service"]


@dataclass(frozen=True)
class StartOptions:
    """The options of ``retrograd serve``, whose help describes them."""

    runs: tuple[Path, ...]
    watched: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    may_move: bool = True
    token: str = ""
    names: tuple[str, ...] = ()
    feedback: bool = False
    waiting: int = 64
    batch: int = 16
    seconds: float = 60.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.seconds):
            raise UserError(f"--seconds is {self.seconds}; expected a number")
        if self.token and not (self.token.isascii() and self.token.isprintable() and " " not in self.token):
            raise UserError("--token holds signs that no header can; use letters, digits, - and _")


def start_service(options: StartOptions, tell: Callable[[str], None]) -> None:
    """Serve runs until SIGTERM or SIGINT. Raises `UserError` for runs that cannot be opened, and a port that is taken.

    ``tell`` prints the address, and the token where one was drawn.
    """
    for package in ("starlette", "uvicorn"):
        require_package("serving", package, "serve")
    from retrograd.serving.app import create_app
    from retrograd.serving.curves import require_run
    from retrograd.serving.queue import QueueLimits
    from retrograd.serving.security import AccessRules, is_loopback
    from retrograd.serving.server import bind, serve_until_stopped
    from retrograd.serving.service import Service, ServiceSettings

    token = options.token or ("" if is_loopback(options.host) else secrets.token_urlsafe(24))
    settings = ServiceSettings(
        AccessRules(options.host, token, options.names),
        QueueLimits(options.waiting, options.batch),
        options.seconds,
        feedback=options.feedback,
    )
    if options.watched is not None:
        require_run(options.watched)
    listener = bind(options.host, options.port, options.may_move)
    try:
        service = Service(open_runs(options.runs), settings, options.watched)
        for line in _describe(service.names, listener, options, token):
            tell(line)
        serve_until_stopped(create_app(service), listener, options.seconds)
    finally:
        listener.close()


def _describe(names: list[str], listener: socket.socket, options: StartOptions, token: str) -> list[str]:
    """Return what is served, and where; the token where it was drawn."""
    port = listener.getsockname()[1]
    shown = f"[{options.host}]" if ":" in options.host else options.host
    address = f"http://{shown}:{port}/"
    what = " and ".join([*names, *([f"the curves of {options.watched}"] if options.watched else [])])
    lines = [f"serving {what} at {address}  (stop with Ctrl-C)"]
    if token and not options.token:
        lines += [f"token: {token}", f"explorer: {address}#token={token}"]
    if options.feedback:
        lines.append("verdicts on answers are kept in feedback.jsonl of the run")
    return lines


def open_runs(paths: tuple[Path, ...]) -> tuple[ServedRun, ...]:
    """Open runs under the names of their folders; equal names get a number. Raises `UserError` as `open_run`."""
    from retrograd.serving.served_run import ServedRun

    runs: list[ServedRun] = []
    for path in paths:
        name = path.resolve().name
        taken = [run.name for run in runs]
        runs.append(ServedRun.open(path, name if name not in taken else f"{name}-{len(runs) + 1}"))
    return tuple(runs)
