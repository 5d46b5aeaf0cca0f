"""The explorer's page and what it asks for beside answers: runs, test examples, weights, curves, verdicts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from http import HTTPStatus
from importlib.resources import files

import torch
from starlette.requests import Request
from starlette.responses import Response

from retrograd.evaluation.laboratory.weights import CandidateWeight, weigh_candidates
from retrograd.rag.candidates import NULL_ROW
from retrograd.serving.curves import read_curves
from retrograd.serving.errors import RequestError
from retrograd.serving.feedback import FeedbackRequest, append_verdict, make_verdict
from retrograd.serving.requests import ExamplesRequest, WeightsRequest, read_query, read_request
from retrograd.serving.served_run import ServedRun
from retrograd.serving.service import Service, json_response, read_body
from retrograd.serving.task_words import asked_again, form_of, labels_of
from retrograd.serving.tested import select_examples
from retrograd.types import Example, UserError
from retrograd.util.guards import JsonObject, JsonValue

__all__ = ["STATIC_FILES", "curves", "examples", "feedback", "page", "runs", "static_file", "weights"]

STATIC_FILES = {
    "style.css": "text/css",
    "explorer.css": "text/css",
    "explorer.js": "text/javascript",
    "uplot.min.css": "text/css",
    "uplot.min.js": "text/javascript",
}
"""The files of the page, with their types."""


async def page(service: Service, request: Request) -> Response:
    """Return the explorer, which holds nothing of the run."""
    return Response(_read("explorer.html"), media_type="text/html")


async def static_file(service: Service, request: Request) -> Response:
    """Return a file of the page."""
    name = request.path_params["name"]
    if name not in STATIC_FILES:
        raise RequestError(HTTPStatus.NOT_FOUND, "the explorer has no such file")
    return Response(_read(name), media_type=STATIC_FILES[name])


def _read(name: str) -> bytes:
    return files("retrograd").joinpath("resources", "web", name).read_bytes()


async def runs(service: Service, request: Request) -> Response:
    """Return what is served: each run's task, passages and labels; whether verdicts are kept, and curves shown."""
    described: list[JsonValue] = [_describe(run) for run in service.runs]
    watched = None if service.watched is None else service.watched.resolve().name
    return json_response({"runs": described, "feedback": service.settings.feedback, "watched": watched})


def _describe(run: ServedRun) -> JsonObject:
    experiment, model = run.opened.experiment, run.opened.model
    return {
        "name": run.name,
        "task": run.opened.task.name,
        "form": form_of(run.opened.task),
        "labels": [*labels_of(run.opened.task)],
        "objective": type(experiment.objective).__name__,
        "passages": len(model.base),
        "read": run.default_passages,
        "example": next((one.query for one in run.tested if one.query), None),
        "test_examples": len(run.tested),
    }


async def examples(service: Service, request: Request) -> Response:
    """Return test examples with the answers that were given, the wrong ones first."""
    asked = read_request(ExamplesRequest, await read_body(request, service.settings))
    run = service.run(asked.run)
    return json_response({"run": run.name, **select_examples(run.tested, asked)})


async def curves(service: Service, request: Request) -> Response:
    """Return what the log of the watched run has gained from byte ``from`` on."""
    if service.watched is None:
        raise RequestError(HTTPStatus.NOT_FOUND, "no training is watched; start the service with --watch RUN")
    start = request.query_params.get("from", "0")
    if not start.isascii() or not start.isdigit() or len(start) > 15:
        raise UserError(f"from is {start[:100]!r}; expected the number of a byte, as next of the answer before")
    return json_response(await asyncio.to_thread(read_curves, service.watched, int(start)))


async def feedback(service: Service, request: Request) -> Response:
    """Keep a verdict on an answer."""
    query, rest = read_query(await read_body(request, service.settings))
    asked = read_request(FeedbackRequest, rest)
    run = service.run(asked.run)
    if not service.settings.feedback:
        raise RequestError(HTTPStatus.FORBIDDEN, "verdicts are not kept; start the service with --feedback")
    verdict = make_verdict(run, query, asked)
    try:
        await asyncio.to_thread(append_verdict, run.path, verdict)
    except UserError as error:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, str(error), 5) from None
    service.metrics.add("feedback")
    return json_response({"run": run.name, "kept": True, "teaches": verdict.teaches}, HTTPStatus.CREATED)


async def weights(service: Service, request: Request) -> Response:
    """Return the candidates of a training example with what the run's objective makes of them."""
    asked = read_request(WeightsRequest, await read_body(request, service.settings))
    run = service.run(asked.run)
    found = await service.ask(request, WeightsBatch(run), asked.example)
    assert isinstance(found, dict)
    return json_response({"run": run.name, **found})


@dataclass(frozen=True)
class WeightsBatch:
    """Weights of single training examples of a run; an item is the number of one."""

    served: ServedRun
    takes_several: bool = False

    def run(self, items: Sequence[object]) -> Sequence[object]:
        """Return the record of each example."""
        return [self._weigh(item) for item in items]

    def _weigh(self, number: object) -> JsonObject:
        assert isinstance(number, int)
        opened = self.served.opened
        objective, passages = opened.experiment.objective, opened.experiment.training.passages
        if passages == 0 or self.served.default_passages == 0:
            raise UserError(f"{type(objective).__name__} of this run reads no passages, so there is nothing to weigh")
        train = opened.data.train
        if number >= len(train):
            raise UserError(f"example is {number}, and this run has {len(train)} training examples, numbered from 0")
        example = train[number]
        rng = torch.Generator().manual_seed(number)
        found = weigh_candidates(opened.model, example, objective, min(passages, len(opened.model.base)), rng)
        return {
            "example": number,
            "of": len(train),
            "objective": type(objective).__name__,
            **asked_again(opened.task, example),
            "target": example.target,
            "candidates": [self._record(one, example) for one in found],
        }

    def _record(self, one: CandidateWeight, example: Example) -> JsonObject:
        base = self.served.opened.model.base
        passage = None if one.row == NULL_ROW else base[one.row]
        return {
            **{name: _finite(value) for name, value in asdict(one).items()},
            "id": None if passage is None else passage.id,
            "title": "" if passage is None else passage.title,
            "text": "(nothing is read)" if passage is None else passage.text,
        }


def _finite(value: int | float | None) -> int | float | None:
    """Return a number that JSON can hold; None for infinite ones."""
    return value if value is not None and abs(value) < float("inf") else None
