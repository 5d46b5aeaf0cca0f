"""Tiny runs that are served by uvicorn itself, in a thread and on a free port, and a client of the standard library."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from retrograd.experiments.data.free_answers import DialogueData, QuestionData
from retrograd.experiments.data.source import DataKind
from retrograd.experiments.experiment import (
    EvaluationSettings,
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.run import run_experiment
from retrograd.objectives.differentiable_knn import RelaxedTopK
from retrograd.serving.app import create_app
from retrograd.serving.queue import QueueLimits
from retrograd.serving.security import AccessRules
from retrograd.serving.server import bind, make_server
from retrograd.serving.service import Service, ServiceSettings
from retrograd.serving.start import open_runs

THINGS = ("cup", "box", "wheel", "car", "tea", "rain")
RunFolders = dict[str, Path]


def write_lines(path: Path, records: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def question_data(folder: Path) -> QuestionData:
    base = [{"id": one, "title": f"the {one}", "text": f"the {one} is in number {i} ."} for i, one in enumerate(THINGS)]
    questions = [{"id": f"q{i}", "question": f"what is the {one} ?", "answers": [one]} for i, one in enumerate(THINGS)]
    tested = [{"id": f"t{i}", "question": f"who is the {one} ?", "answers": [one]} for i, one in enumerate(THINGS)]
    return QuestionData(
        base=write_lines(folder / "base.jsonl", base),
        train=write_lines(folder / "train.jsonl", questions[:4]),
        test=write_lines(folder / "test.jsonl", tested),
    )


def dialogue_data(folder: Path) -> DialogueData:
    questions = question_data(folder)
    turns = [{"history": [f"user: the {one} ?", "agent: is in", "user: what ?"], "answer": one} for one in THINGS]
    return DialogueData(
        base=questions.base,
        train=write_lines(folder / "turns.jsonl", turns[:4]),
        test=write_lines(folder / "last.jsonl", turns[4:]),
    )


def relation_data(folder: Path) -> RelationData:
    records: list[dict[str, Any]] = [
        {"id": str(i), "text": f"the {one} holds tea number {i} .", "head": [4, 4 + len(one)]}
        | {"tail": [11 + len(one), 14 + len(one)], "relation": ("holds", "part-of")[i % 2]}
        for i, one in enumerate(THINGS)
    ]
    train, test = write_lines(folder / "r.jsonl", records[:4]), write_lines(folder / "t.jsonl", records[4:])
    return RelationData(train=train, test=test, labels="from_train")


def experiment(data: DataKind, encoder: Path, generator: Path, **evaluation: Any) -> Experiment:
    return Experiment(
        data=data,
        retriever=RetrieverSettings(model=str(encoder)),
        generator=GeneratorSettings(model=str(generator), max_target_tokens=8),
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, passages=3, batch_size=2, precision="fp32"),
        evaluation=EvaluationSettings(**evaluation),
    )


def soft_prompts(data: DataKind, encoder: Path, generator: Path) -> Experiment:
    return replace(experiment(data, encoder, generator), objective=RelaxedTopK(slots=2))


@pytest.fixture(scope="session")
def runs(
    tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory
) -> RunFolders:
    """Return finished runs by name: of questions, read in four ways, and of other kinds of data."""
    folder = tmp_path_factory.mktemp("served")
    made = {
        "questions": experiment(question_data(folder), tiny_encoder, tiny_seq2seq),
        "together": experiment(question_data(folder), tiny_encoder, tiny_causal, reading="together"),
        "fused": experiment(question_data(folder), tiny_encoder, tiny_seq2seq, reading="fused"),
        "soft": soft_prompts(question_data(folder), tiny_encoder, tiny_seq2seq),
        "dialogues": experiment(dialogue_data(folder), tiny_encoder, tiny_seq2seq),
        "relations": experiment(relation_data(folder), tiny_encoder, tiny_seq2seq),
    }
    for name, one in made.items():
        run_experiment(one, folder / name)
    return {name: folder / name for name in made}


@pytest.fixture
def own_run(runs: RunFolders, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a run, for tests that write into it."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(runs[name], tmp_path / name))

    return copy


@dataclass(frozen=True)
class Reply:
    """A response: its status, headers by their lower-case names, and body."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def record(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        """Return the message of an error."""
        return self.record["error"]["message"]


@dataclass(frozen=True)
class Served:
    """A service that runs, and the port it listens at."""

    service: Service
    port: int
    token: str = ""
    stop: Callable[[], None] = lambda: None

    def request(
        self, method: str, path: str, body: bytes | str | None = None, headers: Mapping[str, str] | None = None
    ) -> Reply:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        own = {"authorization": f"Bearer {self.token}"} if self.token else {}
        try:
            connection.request(method, path, body, {**own, **(headers or {})})
            response = connection.getresponse()
            names = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, names, response.read())
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Reply:
        return self.request("GET", path, headers=headers)

    def post(self, path: str, record: Any, headers: Mapping[str, str] | None = None) -> Reply:
        own = {"content-type": "application/json", **(headers or {})}
        return self.request("POST", path, json.dumps(record), own)


@contextmanager
def serving(
    *folders: Path,
    settings: ServiceSettings | None = None,
    waiting: int = 64,
    seconds: float = 60.0,
    token: str = "",
    feedback: bool = False,
    watched: Path | None = None,
) -> Iterator[Served]:
    """Serve runs in a thread for the block, and stop in order."""
    settings = settings or ServiceSettings(
        AccessRules(token=token), QueueLimits(waiting=waiting), seconds=seconds, feedback=feedback
    )
    service = Service(open_runs(folders), settings, watched)
    listener = bind("127.0.0.1", 0, may_move=False)
    server = make_server(create_app(service), seconds)

    def stop() -> None:
        server.should_exit = True

    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield Served(service, listener.getsockname()[1], token, stop)
    finally:
        stop()
        thread.join()
        listener.close()


@pytest.fixture(scope="session")
def served(runs: RunFolders) -> Iterator[Served]:
    """Serve all runs, the one of questions first."""
    with serving(*runs.values()) as one:
        yield one
