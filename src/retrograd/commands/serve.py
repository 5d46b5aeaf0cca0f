"""``retrograd serve``: a finished run over HTTP, and the explorer in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from retrograd.types import UserError

__all__ = ["serve"]

_PORT = 8080


def serve(
    run: Annotated[Path | None, typer.Argument(help="The folder of a finished run.")] = None,
    beside: Annotated[Path | None, typer.Option(help="A second run, to compare with in the explorer.")] = None,
    watch: Annotated[
        Path | None, typer.Option(help="Show the curves of this run while it is trained; no model is opened for it.")
    ] = None,
    host: Annotated[str, typer.Option(help="Where to listen; beyond this machine a token is needed.")] = "127.0.0.1",
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Default: 8080, or a free one where that is taken; 0: free.")
    ] = None,
    token: Annotated[
        str, typer.Option(envvar="RETROGRAD_TOKEN", help="What clients must send; default: drawn where one is needed.")
    ] = "",
    allow_host: Annotated[
        list[str] | None, typer.Option(help="A further name under which the service is reached. Repeatable.")
    ] = None,
    feedback: Annotated[
        bool, typer.Option("--feedback", help="Keep verdicts on answers in RUN/feedback.jsonl, to learn from.")
    ] = False,
    waiting: Annotated[int, typer.Option(min=1, help="Requests that may wait; more are refused (429).")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Requests that the model does together, at most.")] = 16,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds until a request is given up (504).")] = 60.0,
) -> None:
    """Serve a finished run over HTTP: search, answers, embeddings, the API of OpenAI, and an explorer in a browser.

    Example: `retrograd serve runs/questions --feedback`
    """
    if run is None and watch is None:
        raise UserError("nothing to serve; give the folder of a finished run, or --watch RUN for one in training")
    if run is None and beside is not None:
        raise UserError("--beside compares with a run, and none is given; give the folder of a finished run first")
    from retrograd.serving.start import StartOptions, start_service

    options = StartOptions(
        runs=tuple(one for one in (run, beside) if one is not None),
        watched=watch,
        host=host,
        port=_PORT if port is None else port,
        may_move=port is None,
        token=token,
        names=tuple(allow_host or ()),
        feedback=feedback,
        waiting=waiting,
        batch=batch,
        seconds=seconds,
    )
    start_service(options, typer.echo)
