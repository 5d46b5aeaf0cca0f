"""The service's own endpoints: search, answer, embed."""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import Response

from retrograd.serving.errors import RequestError
from retrograd.serving.requests import AnswerRequest, EmbedRequest, SearchRequest, read_query, read_request
from retrograd.serving.served_run import AnswerBatch, EmbedBatch, SearchBatch, hit_records
from retrograd.serving.service import Service, json_response, read_body
from retrograd.types import Hit, Prediction
from retrograd.util.guards import JsonObject

__all__ = ["answer", "as_hits", "as_prediction", "as_vectors", "embed", "health", "metrics", "search"]


async def search(service: Service, request: Request) -> Response:
    """Return the k best passages for a query with p(z|x), best first."""
    query, rest = read_query(await read_body(request, service.settings))
    asked = read_request(SearchRequest, rest)
    run = service.run(asked.run)
    example = run.read_query(query)
    k = min(asked.k, len(run.opened.model.base))
    hits = as_hits(await service.ask(request, SearchBatch(run, k, asked.where), example))
    return json_response({"run": run.name, "passages": hit_records(hits)})


async def answer(service: Service, request: Request) -> Response:
    """Return the model's answer to a query with its confidence, its passages and what it cites."""
    query, rest = read_query(await read_body(request, service.settings))
    asked = read_request(AnswerRequest, rest)
    run = service.run(asked.run)
    example = run.read_query(query)
    k = run.default_passages if asked.k is None else min(asked.k, len(run.opened.model.base))
    batch = AnswerBatch(run, k, asked.where)
    prediction = as_prediction(await service.ask(request, batch, example))
    record: JsonObject = {"run": run.name}
    return json_response(record | run.answer_record(example, prediction))


async def embed(service: Service, request: Request) -> Response:
    """Return the embeddings of texts by one side of the retriever."""
    asked = read_request(EmbedRequest, await read_body(request, service.settings))
    run = service.run(asked.run)
    texts = run.embedded_texts(asked.texts, asked.side)
    vectors = as_vectors(await service.ask(request, EmbedBatch(run, asked.side), texts))
    dimension = run.opened.model.retriever.query_encoder.dimension
    return json_response({"run": run.name, "side": asked.side, "dimension": dimension, "embeddings": vectors})


async def health(service: Service, request: Request) -> Response:
    """Return that the service answers. Raises `RequestError` where its model does not work any more."""
    if not service.queue.is_alive:
        raise RequestError(HTTPStatus.SERVICE_UNAVAILABLE, "the model's thread has ended; start the service again")
    return json_response({"status": "ok", "waiting": len(service.queue)})


async def metrics(service: Service, request: Request) -> Response:
    """Return counts and durations in the text format of Prometheus."""
    text = service.metrics.text(len(service.queue), sum(run.index.switches for run in service.runs))
    return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


# The queue carries results of every kind; these say which one a batch returns.


def as_hits(value: object) -> list[Hit]:
    """Return the result of a `SearchBatch`."""
    hits: list[Hit] = []
    for hit in _as_list(value):
        assert isinstance(hit, Hit)
        hits.append(hit)
    return hits


def as_prediction(value: object) -> Prediction:
    """Return the result of an `AnswerBatch`."""
    assert isinstance(value, Prediction)
    return value


def as_vectors(value: object) -> list[list[float]]:
    """Return the result of an `EmbedBatch`."""
    vectors: list[list[float]] = []
    for vector in _as_list(value):
        assert isinstance(vector, list)
        vectors.append(vector)
    return vectors


def _as_list(value: object) -> Sequence[object]:
    assert isinstance(value, list)
    return value
