"""The API of OpenAI: completions whole and in pieces, embeddings, models; `tests/browser` has its own client."""

from __future__ import annotations

import base64
import json
import struct
import threading
import time
from http.client import HTTPConnection
from typing import Any

import pytest
from tests.serving.conftest import THINGS, Served

from retrograd.types import UserError

QUERY = "what is the cup ?"


def chat(model: str, *contents: str, **others: Any) -> dict[str, Any]:
    roles = ("user", "assistant")
    messages = [{"role": roles[i % 2], "content": content} for i, content in enumerate(contents)]
    return {"model": model, "messages": messages, **others}


def pieces(served: Served, body: dict[str, Any]) -> list[dict[str, Any]]:
    reply = served.post("/v1/chat/completions", {**body, "stream": True})
    assert reply.status == 200, reply.body
    assert reply.headers["content-type"].startswith("text/event-stream")
    events = [line.removeprefix("data: ") for line in reply.body.decode().split("\n\n") if line]
    assert events[-1] == "[DONE]"
    return [json.loads(event) for event in events[:-1]]


def test_a_completion_is_the_answer_with_its_sources(served: Served) -> None:
    answer = served.post("/api/answer", {"query": QUERY}).record
    record = served.post("/v1/chat/completions", chat("questions", QUERY, temperature=0.2, max_tokens=5)).record
    assert record["choices"][0]["message"]["content"] == answer["answer"]
    assert record["object"] == "chat.completion"
    assert [one["id"] for one in record["retrograd"]["passages"]] == [one["id"] for one in answer["passages"]]


def test_a_dialogue_reads_all_turns_and_a_question_the_last(served: Served) -> None:
    contents = ("the cup ?", "is in", "what ?")
    turns = [{"role": role, "text": text} for role, text in zip(("user", "agent", "user"), contents, strict=True)]
    whole = served.post("/api/answer", {"turns": turns, "run": "dialogues"}).record["answer"]
    asked = chat("dialogues", *contents)
    asked["messages"].insert(0, {"role": "system", "content": "is not read"})
    assert served.post("/v1/chat/completions", asked).record["choices"][0]["message"]["content"] == whole
    last = served.post("/v1/chat/completions", chat("questions", "the cup ?", "is in", QUERY)).record
    alone = served.post("/v1/chat/completions", chat("questions", QUERY)).record
    assert last["choices"] == alone["choices"]


@pytest.mark.parametrize(
    ("model", "k"),
    [("questions", None), ("questions", 0), ("together", None), ("together", 2), ("fused", None), ("soft", None)],
)
def test_pieces_are_the_sources_the_answer_and_its_record(served: Served, model: str, k: int | None) -> None:
    body = chat(model, QUERY) | ({} if k is None else {"k": k})
    answer = served.post("/api/answer", {"query": QUERY, "run": model} | ({} if k is None else {"k": k})).record
    first, *middle, last = pieces(served, body)
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert {one["id"] for one in first["retrograd"]["passages"]} == {one["id"] for one in answer["passages"]}
    text = "".join(one["choices"][0]["delta"]["content"] for one in middle)
    assert text == answer["answer"] == last["retrograd"]["answer"]
    assert last["choices"][0]["finish_reason"] == "stop"
    assert len({one["id"] for one in (first, *middle, last)}) == 1


def test_what_is_decoded_once_is_streamed(served: Served) -> None:
    names = ("questions", "together", "fused", "soft")
    assert [name for name in names if served.service.run(name).streams(2)] == ["together", "fused", "soft"]
    assert served.service.run("questions").streams(0)


def test_words_come_while_others_are_still_computed(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The generator stops after its fourth token until the client has read a word."""
    generator = served.service.run("together").opened.model.generator
    has_read, written = threading.Event(), []
    followed = generator.followed_by

    def waiting(follow):
        def slowly(text: str) -> None:
            written.append(text)
            follow(text)
            if len(written) == 4:
                assert has_read.wait(30)

        return followed(slowly)

    monkeypatch.setattr(generator, "followed_by", waiting)
    connection = HTTPConnection("127.0.0.1", served.port, timeout=30)
    body = json.dumps(chat("together", QUERY, stream=True))
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    response = connection.getresponse()
    content = b""
    while b'"delta": {"content"' not in content:
        content += response.read1()
    assert len(written) <= 4
    has_read.set()
    assert response.read().endswith(b"data: [DONE]\n\n")
    assert len(written) > 4
    connection.close()


def test_a_client_that_leaves_ends_the_writing(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = served.service.run("together").opened.model.generator
    has_left, written = threading.Event(), []
    followed = generator.followed_by

    def waiting(follow):
        def until_it_ends(text: str) -> None:
            written.append(text)
            follow(text)
            if len(written) == 2:
                assert has_left.wait(30)
                for _ in range(3000):  # the server notices that the client has gone; then this raises
                    follow(text)
                    time.sleep(0.01)

        return followed(until_it_ends)

    monkeypatch.setattr(generator, "followed_by", waiting)
    connection = HTTPConnection("127.0.0.1", served.port, timeout=30)
    body = json.dumps(chat("together", QUERY, stream=True))
    connection.request("POST", "/v1/chat/completions", body, {"content-type": "application/json"})
    connection.getresponse().read1()
    connection.close()
    has_left.set()
    assert served.post("/api/search", {"query": QUERY}).status == 200
    assert 1 <= len(written) <= 2


@pytest.mark.parametrize(
    ("fault", "told", "logged"),
    [
        (UserError("this cannot be read"), "this cannot be read", 0),
        (RuntimeError("secret"), "the service failed; its log says where", 1),
    ],
)
def test_a_fault_in_a_stream_is_an_event_of_its_own(
    served: Served,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: Exception,
    told: str,
    logged: int,
) -> None:
    def failing(follow):
        raise fault

    monkeypatch.setattr(served.service.run("together").opened.model.generator, "followed_by", failing)
    reply = served.post("/v1/chat/completions", chat("together", QUERY, stream=True))
    first, last, _ = reply.body.decode().split("\n\n")
    assert '"passages"' in first
    error = json.loads(last.removeprefix("data: "))["error"]
    assert set(error) == {"message", "type", "code"}
    assert error["message"] == told
    assert (caplog.text.count("a request failed") > 0) == logged
    assert "[DONE]" not in last


def test_counts_of_tokens_end_a_stream_that_asks_for_them(served: Served) -> None:
    *_, last, usage = pieces(served, chat("questions", QUERY, stream_options={"include_usage": True}))
    assert last["choices"][0]["finish_reason"] == "stop"
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 0)


def test_an_embedding_names_the_run_that_made_it(served: Served) -> None:
    assert served.post("/v1/embeddings", {"model": "", "input": "a"}).record["model"] == "questions"


def test_embeddings_as_numbers_and_as_base64(served: Served) -> None:
    texts = [f"what is the {one} ?" for one in THINGS[:2]]
    own = served.post("/api/embed", {"texts": texts}).record["embeddings"]
    numbers = served.post("/v1/embeddings", {"model": "questions", "input": texts}).record
    assert [one["embedding"] for one in numbers["data"]] == [pytest.approx(vector, rel=1e-5) for vector in own]
    packed = served.post("/v1/embeddings", {"model": "questions", "input": texts[0], "encoding_format": "base64"})
    (one,) = packed.record["data"]
    assert struct.unpack("<16f", base64.b64decode(one["embedding"])) == pytest.approx(own[0], rel=1e-4, abs=1e-6)
    passage = {"model": "questions", "input": "the cup", "input_type": "passage", "dimensions": 16}
    assert served.post("/v1/embeddings", passage).record["data"][0]["embedding"] == pytest.approx(
        served.post("/api/embed", {"texts": ["the cup"], "side": "passage"}).record["embeddings"][0], rel=1e-5
    )


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("chat/completions", {"model": "questions"}, 422, "messages is None"),
        ("chat/completions", chat("nobody", QUERY), 404, "no run is named 'nobody'"),
        ("chat/completions", chat("questions", QUERY, tools=[]), 422, "'tools' is not supported"),
        ("chat/completions", chat("questions", QUERY, n=2), 422, "n is 2"),
        ("chat/completions", chat("questions", QUERY, stream="yes"), 422, "stream is 'yes'"),
        ("chat/completions", chat("questions", QUERY, "last"), 422, "must be the user's"),
        ("chat/completions", {"model": "questions", "messages": [{"role": "x", "content": "a"}]}, 422, "messages[0]"),
        ("chat/completions", {"model": "questions", "messages": [{"role": "user", "content": [3]}]}, 422, "content[0]"),
        ("chat/completions", {"model": 3, "messages": [{"role": "user", "content": "a"}]}, 422, "model is 3"),
        ("chat/completions", chat("relations", QUERY), 422, "<e1>"),
        ("embeddings", {"model": "questions", "input": [1, 2]}, 422, "input[0] is 1"),
        ("embeddings", {"model": "questions", "input": "a", "dimensions": 3}, 422, "has 16"),
        ("embeddings", {"model": "questions", "input": "a", "encoding_format": "hex"}, 422, "encoding_format"),
        ("embeddings", {"input": "a"}, 422, "model is None"),
        ("embeddings", {"model": "questions", "input": "a", "temperature": 0}, 422, "'temperature' is not supported"),
        ("chat/completions", chat("questions", QUERY, stream_options=3), 422, "stream_options is 3"),
        ("chat/completions", chat("questions", QUERY, stream_options={"a": 1}), 422, "stream_options: 'a' is not"),
    ],
)
def test_what_cannot_be_done_is_named(served: Served, path: str, body: Any, status: int, said: str) -> None:
    reply = served.post(f"/v1/{path}", body)
    assert (reply.status, said in reply.message) == (status, True), reply.body
    assert set(reply.record["error"]) == {"message", "type", "code"}
