"""Search, answers and embeddings over HTTP are those of the model, however many clients ask at once."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from tests.serving.conftest import THINGS, RunFolders, Served, serving

from retrograd.experiments.open import OpenRun, open_run
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.serving import served_run
from retrograd.studies.answers import predict_file, select_rows

QUERIES = {
    **{name: [f"what is the {one} ?" for one in THINGS] for name in ("questions", "together", "fused", "soft")},
    "relations": [f"the <e1>{one}</e1> holds <e2>tea</e2> ." for one in THINGS],
    "dialogues": [f"the {one} ?" for one in THINGS],
}


@pytest.fixture(scope="module")
def opened(runs: RunFolders) -> dict[str, OpenRun]:
    return {name: open_run(path) for name, path in runs.items()}


def typed(query: str) -> str:
    """Return a marked sentence as people type it."""
    return query.replace("@ ", "<e1>", 1).replace(" @", "</e1>").replace("# ", "<e2>", 1).replace(" #", "</e2>")


def close(value: float) -> object:
    """A batch of several texts is padded, which moves a sum of 16 products in fp32 by some units in the last place."""
    return pytest.approx(value, rel=1e-4, abs=1e-6)


def test_search_is_the_models(served: Served, opened: dict[str, OpenRun]) -> None:
    for name, run in opened.items():
        query = QUERIES[name][0]
        reply = served.post("/api/search", {"query": query, "k": 3, "run": name})
        assert reply.status == 200, reply.body
        hits = run.model.search(query, 3)
        assert [one["id"] for one in reply.record["passages"]] == [hit.passage.id for hit in hits]
        assert [one["prior"] for one in reply.record["passages"]] == [close(hit.probability) for hit in hits]
        assert reply.record["passages"][0]["text"] == hits[0].passage.text
        assert reply.record["run"] == name


def test_an_answer_is_what_predict_writes(served: Served, runs: RunFolders) -> None:
    for name, file in (("questions", "test.jsonl"), ("relations", "t.jsonl")):
        for record in predict_file(runs[name], runs[name].parent / file):
            query = typed(record["query"]) if name == "relations" else record["query"]
            reply = served.post("/api/answer", {"query": query, "run": name}).record
            assert reply["answer"] == record["answer"]
            assert reply["confidence"] == close(record["confidence"])
            assert reply.get("relation") == record.get("relation")
            ids = [one["id"] for one in reply["passages"]]
            assert ids == [one["id"] for one in record["candidates"]]
            assert reply["citations"][0]["passage_id"] in ids


def test_a_dialogue_is_asked_by_its_turns(served: Served, opened: dict[str, OpenRun]) -> None:
    turns = [
        {"role": "user", "text": "the cup ?"},
        {"role": "agent", "text": "is in"},
        {"role": "user", "text": "what ?"},
    ]
    reply = served.post("/api/answer", {"turns": turns, "run": "dialogues"})
    run = opened["dialogues"]
    example = next(one for one in run.data.train if "cup" in one.query)
    assert reply.record["answer"] == run.model.predict([example], 3)[0].answer
    refused = served.post("/api/answer", {"turns": turns, "run": "questions"})
    assert refused.status == 422
    assert '"turns" are for dialogues' in refused.message


def test_a_filter_and_no_passages(served: Served, opened: dict[str, OpenRun]) -> None:
    query = QUERIES["questions"][1]
    reply = served.post("/api/search", {"query": query, "where": ["title=*cup*"]})
    assert [one["id"] for one in reply.record["passages"]] == ["cup"]
    alone = served.post("/api/answer", {"query": query, "k": 0}).record
    assert alone["passages"] == []
    assert alone["answer"] == opened["questions"].model.answer(query, 0).answer
    assert "no passage matches" in served.post("/api/search", {"query": query, "where": ["title=?"]}).message


def test_passages_are_filtered_in_the_models_thread(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = []

    def noted(base: KnowledgeBase, where: Sequence[str]) -> list[int] | None:
        threads.append(threading.current_thread().name)
        return select_rows(base, where)

    monkeypatch.setattr(served_run, "select_rows", noted)
    for what in ("search", "answer"):
        assert served.post(f"/api/{what}", {"query": "what is the cup ?", "where": ["title=*cup*"]}).status == 200
    assert threads == ["retrograd-model"] * 2


def test_embeddings_are_the_retrievers(served: Served, opened: dict[str, OpenRun]) -> None:
    retriever = opened["questions"].model.retriever
    texts = QUERIES["questions"][:2]
    reply = served.post("/api/embed", {"texts": texts}).record
    for vector, expected in zip(
        reply["embeddings"], retriever.query_encoder.embed(texts, "query").tolist(), strict=True
    ):
        assert vector == [close(value) for value in expected]
    assert reply["dimension"] == 16
    passages = served.post("/api/embed", {"texts": ["the cup"], "side": "passage"}).record["embeddings"]
    assert passages[0] == [close(value) for value in retriever.passage_encoder.embed_passages(["the cup"])[0].tolist()]


def test_sixteen_clients_with_mixed_requests_get_what_one_gets(served: Served, opened: dict[str, OpenRun]) -> None:
    expected: dict[tuple[str, str], Any] = {}
    for name, run in opened.items():
        for query in QUERIES[name]:
            expected["search", name, query] = [hit.passage.id for hit in run.model.search(query, 4)]
            expected["answer", name, query] = run.model.answer(query, 3).answer
    asked = random.Random(0).choices(list(expected), k=200)

    def ask(one: tuple[str, str, str]) -> Any:
        what, name, query = one
        body = {"query": query, "run": name, "k": 4 if what == "search" else 3}
        record = served.post(f"/api/{what}", body).record
        return [hit["id"] for hit in record["passages"]] if what == "search" else record["answer"]

    with ThreadPoolExecutor(16) as clients:
        assert list(clients.map(ask, asked)) == [expected[one] for one in asked]


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/api/search", {}, 422, '"query"'),
        ("/api/search", {"query": "a", "turns": []}, 422, "not both"),
        ("/api/search", {"query": 3}, 422, "query is 3"),
        ("/api/search", {"query": "a", "where": ["title=*"] * 9}, 422, "where has 9 patterns"),
        ("/api/answer", {"query": "a", "where": ["title=" + "*" * 200]}, 422, "where[0] has 206 characters"),
        ("/api/search", {"query": "a", "where": ["colour=red"]}, 422, "no field 'colour'"),
        ("/api/search", {"query": " "}, 422, "blank"),
        ("/api/search", {"query": "a", "k": 0}, 422, "k is 0"),
        ("/api/search", {"query": "a", "k": 10**30}, 422, "k is 1000"),
        ("/api/search", {"query": "a", "kk": 3}, 422, "did you mean 'k'"),
        ("/api/search", {"query": "a", "k": True}, 422, "k is True"),
        ("/api/search", {"query": "a", "where": "x"}, 422, "where is 'x'"),
        ("/api/search", {"query": "a", "where": ["x"]}, 422, "FIELD=PATTERN"),
        ("/api/search", {"query": "a", "run": "question"}, 404, "did you mean 'questions'"),
        ("/api/answer", {"query": "a", "k": -1}, 422, "k is -1"),
        ("/api/answer", {"query": "a", "run": "relations"}, 422, "<e1>"),
        ("/api/embed", {"texts": []}, 422, "0 texts"),
        ("/api/embed", {"texts": ["a", " "]}, 422, "texts[1]"),
        ("/api/embed", {"texts": ["a"], "side": "both"}, 422, "side is 'both'"),
        ("/api/embed", {}, 422, "'texts'"),
        ("/api/search", [1], 400, "expected a JSON object"),
    ],
)
def test_what_is_malformed_is_named(served: Served, path: str, body: Any, status: int, said: str) -> None:
    reply = served.post(path, body)
    assert (reply.status, said in reply.message) == (status, True), reply.body
    assert reply.headers["content-type"] == "application/json"


def test_unknown_paths_and_methods(served: Served) -> None:
    assert served.get("/nowhere").status == 404
    reply = served.get("/api/search")
    assert (reply.status, reply.headers["allow"]) == (405, "POST")
    assert "use POST" in reply.message


def test_health_and_metrics(served: Served) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    assert served.get("/health").record["status"] == "ok"
    served.post("/api/search", {"query": "what"})
    reply = served.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {one.name: one for one in text_string_to_metric_families(reply.body.decode())}
    counted = {
        (sample.labels["endpoint"], sample.labels["status"]): sample.value
        for sample in families["retrograd_requests"].samples
    }
    assert counted["/api/search", "200"] >= 1
    buckets = [one for one in families["retrograd_request_seconds"].samples if one.name.endswith("_bucket")]
    of_search = [one.value for one in buckets if one.labels["endpoint"] == "/api/search"]
    assert of_search == sorted(of_search)
    assert families["retrograd_batches"].samples[0].value >= 1
    assert families["retrograd_resident_memory_bytes"].samples[0].value > 0


def test_two_runs_of_one_name_are_told_apart(runs: RunFolders) -> None:
    with serving(runs["questions"], runs["questions"]) as both:
        names = [one["id"] for one in both.get("/v1/models").record["data"]]
        assert names == ["questions", "questions-2"]
