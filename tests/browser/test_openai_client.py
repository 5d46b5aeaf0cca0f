"""The service as other programs use it: the Python client of OpenAI, and curl."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from tests.requirements import skip_without_openai
from tests.serving.conftest import RunFolders, Served, runs, serving

if TYPE_CHECKING:
    from openai import OpenAI

__all__ = ["runs"]

pytestmark = pytest.mark.integration

QUERY = "what is the cup ?"
TOKEN = "a-token"


@pytest.fixture(scope="module")
def guarded(runs: RunFolders) -> Iterator[Served]:
    with serving(*runs.values(), token=TOKEN) as one:
        yield one


@pytest.fixture
def client(guarded: Served) -> Iterator[OpenAI]:
    skip_without_openai()
    from openai import OpenAI

    with OpenAI(base_url=f"http://127.0.0.1:{guarded.port}/v1", api_key=TOKEN, max_retries=0) as one:
        yield one


def test_models_and_chat(client: OpenAI, guarded: Served, runs: RunFolders) -> None:
    assert [one.id for one in client.models.list()] == list(runs)
    messages = [{"role": "system", "content": "be brief"}, {"role": "user", "content": QUERY}]
    made = client.chat.completions.create(model="questions", messages=messages, temperature=0)
    answer = guarded.post("/api/answer", {"query": QUERY}).record
    assert made.choices[0].message.content == answer["answer"]
    assert made.model_extra is not None
    assert [one["id"] for one in made.model_extra["retrograd"]["passages"]] == [one["id"] for one in answer["passages"]]


@pytest.mark.parametrize("model", ["questions", "together"])
def test_a_stream(client: OpenAI, guarded: Served, model: str) -> None:
    answer = guarded.post("/api/answer", {"query": QUERY, "run": model}).record["answer"]
    stream = client.chat.completions.create(model=model, messages=[{"role": "user", "content": QUERY}], stream=True)
    chunks = list(stream)
    assert chunks[0].model_extra is not None
    assert len(chunks[0].model_extra["retrograd"]["passages"]) == 3
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer
    assert chunks[-1].choices[0].finish_reason == "stop"


@pytest.mark.parametrize("encoding", ["float", "base64", None])
def test_embeddings(client: OpenAI, guarded: Served, encoding: str | None) -> None:
    chosen = {} if encoding is None else {"encoding_format": encoding}
    made = client.embeddings.create(model="questions", input=[QUERY, "what is the box ?"], **chosen)
    own = guarded.post("/api/embed", {"texts": [QUERY, "what is the box ?"]}).record["embeddings"]
    if encoding != "base64":
        assert [one.embedding for one in made.data] == [pytest.approx(vector, rel=1e-4, abs=1e-6) for vector in own]


def test_errors_are_the_clients_own(client: OpenAI) -> None:
    import openai

    messages = [{"role": "user", "content": QUERY}]
    with pytest.raises(openai.NotFoundError, match="no run is named"):
        client.chat.completions.create(model="nobody", messages=messages)
    with pytest.raises(openai.UnprocessableEntityError, match="n is 2"):
        client.chat.completions.create(model="questions", messages=messages, n=2)
    with pytest.raises(openai.AuthenticationError, match="token"):
        client.with_options(api_key="wrong").models.list()


def test_curl(guarded: Served) -> None:
    address = f"http://127.0.0.1:{guarded.port}"
    own = ["curl", "--silent", "--show-error", "--no-buffer", "--header", f"Authorization: Bearer {TOKEN}"]

    def curl(*words: str) -> str:
        return subprocess.run([*own, *words], capture_output=True, text=True, check=True, timeout=60).stdout

    found = json.loads(curl(f"{address}/api/search", "--json", json.dumps({"query": QUERY, "k": 2})))
    assert len(found["passages"]) == 2
    body = {"model": "together", "stream": True, "messages": [{"role": "user", "content": QUERY}]}
    assert curl(f"{address}/v1/chat/completions", "--json", json.dumps(body)).endswith("data: [DONE]\n\n")
    assert curl("--output", "/dev/null", "--write-out", "%{http_code}", f"{address}/health") == "200"
