"""The endpoints of OpenAI's API: chat completions, whole or streamed, embeddings and models."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator
from concurrent.futures import CancelledError

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from retrograd.serving import openai
from retrograd.serving.api import as_prediction, as_vectors
from retrograd.serving.errors import as_request_error
from retrograd.serving.requests import Query
from retrograd.serving.served_run import (
    AnswerBatch,
    EmbedBatch,
    ServedRun,
    StreamBatch,
    StreamedAnswer,
    hit_records,
)
from retrograd.serving.service import Service, json_response, read_body
from retrograd.tasks.task import TurnTask
from retrograd.types import Example, Hit
from retrograd.util.guards import JsonObject

__all__ = ["chat_completions", "embeddings", "models"]

_LOG = logging.getLogger("retrograd.serving")


async def models(service: Service, request: Request) -> Response:
    """Return the runs as models."""
    return json_response(openai.model_records(service.names))


async def embeddings(service: Service, request: Request) -> Response:
    """Return embeddings of texts, as questions unless ``input_type`` is "passage"."""
    body = await read_body(request, service.settings)
    model = body.get("model")
    run = service.run(model) if isinstance(model, str) and model else None
    asked = openai.read_embeddings(body, (run or service.run("")).opened.model.retriever.query_encoder.dimension)
    run = run or service.run(asked.model)
    texts = run.embedded_texts(asked.texts, asked.side)
    vectors = as_vectors(await service.ask(request, EmbedBatch(run, asked.side), texts))
    return json_response(openai.embeddings_record(run.name, asked.encoding, vectors))


async def chat_completions(service: Service, request: Request) -> Response:
    """Answer the last message of a chat: a dialogue reads the turns before it, too, any other task it alone."""
    asked = openai.read_chat(await read_body(request, service.settings))
    run = service.run(asked.model)
    is_dialogue = isinstance(run.opened.task, TurnTask)
    example = run.read_query(Query(turns=asked.turns) if is_dialogue else Query(asked.turns[-1].text))
    k = run.default_passages if asked.k is None else min(asked.k, len(run.opened.model.base))
    if asked.stream:
        return _Stream(service, run, example, asked, k)
    prediction = as_prediction(await service.ask(request, AnswerBatch(run, k), example))
    return json_response(openai.chat_completion(run.name, run.answer_record(example, prediction)))


class _Stream(Response):
    """A completion in pieces: the sources, the answer, and the record of the answer with the last piece.

    An answer that is decoded once comes in words, each as soon as it is decoded, any other in one piece: one of several
    texts is taken when all of them are written. The work is in the queue when this is made, so that a full queue is
    answered as for any other request.
    """

    def __init__(self, service: Service, run: ServedRun, example: Example, chat: openai.ChatRequest, k: int) -> None:
        super().__init__(media_type="text/event-stream")
        del self.headers["content-length"]
        self._service = service
        self._run = run
        self._example = example
        self._with_usage = chat.with_usage
        self._k = k
        self._id = openai.new_id()
        self._is_over = threading.Event()
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[list[Hit] | str] = asyncio.Queue()
        follow = self._pass_on if run.streams(k) else None
        self._answer = service.queue.submit(StreamBatch(run, k), StreamedAnswer(example, self._pass_on, follow))

    def _pass_on(self, piece: list[Hit] | str) -> None:
        """Hand a piece to the event loop, from the model's thread. Raises `CancelledError` when nobody reads it."""
        if self._is_over.is_set():
            raise CancelledError
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces; an error after the first of them is an event of its own, as the status has gone out."""
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        events = self._events(receive)
        try:
            async for event in events:
                await send({"type": "http.response.body", "body": openai.server_event(event), "more_body": True})
            last = openai.server_event("[DONE]")
        except (ClientDisconnect, OSError):
            return
        except Exception as error:
            last = openai.server_event(as_request_error(error).record())
        finally:
            self._is_over.set()
            await events.aclose()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _events(self, receive: Receive) -> AsyncGenerator[JsonObject]:
        """Yield the pieces."""
        answer = asyncio.ensure_future(self._service.wait(receive, self._answer))
        sent = ""
        if self._k == 0:
            yield self._sources([])
        try:
            while not (answer.done() and self._pieces.empty()):
                piece = asyncio.ensure_future(self._pieces.get())
                await asyncio.wait({piece, answer}, return_when=asyncio.FIRST_COMPLETED)
                if not piece.done():
                    piece.cancel()
                    await asyncio.sleep(0)  # pieces that were handed over before the answer was
                    continue
                value = piece.result()
                if isinstance(value, list):
                    yield self._sources(value)
                    continue
                words = _finished_words(value)
                if words.startswith(sent) and words != sent:
                    self._service.metrics.add("streamed_pieces")
                    yield self._piece(words[len(sent) :])
                    sent = words
            prediction = as_prediction(await answer)
            if not prediction.answer.startswith(sent):
                _LOG.warning("the words that were streamed are not those of the answer, which the last piece has")
            elif prediction.answer != sent:
                yield self._piece(prediction.answer[len(sent) :])
            answered = self._run.answer_record(self._example, prediction)
            yield openai.chat_chunk(self._id, self._run.name, {}, is_last=True, extra=answered)
            if self._with_usage:
                yield openai.usage_chunk(self._id, self._run.name)
        finally:
            answer.cancel()
            self._answer.cancel()

    def _sources(self, hits: list[Hit]) -> JsonObject:
        delta: JsonObject = {"role": "assistant", "content": ""}
        return openai.chat_chunk(self._id, self._run.name, delta, extra={"passages": hit_records(hits)})

    def _piece(self, text: str) -> JsonObject:
        return openai.chat_chunk(self._id, self._run.name, {"content": text})


def _finished_words(text: str) -> str:
    """Return the words before the last: later tokens may join the last one, or take the space before it away."""
    words, _, _ = text.rpartition(" ")
    return words.rstrip()
