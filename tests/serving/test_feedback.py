"""Verdicts are kept as whole lines where that was asked for, and a training learns from them."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.serving.conftest import RunFolders, Served, serving

from retrograd.data.feedback import read_verdicts
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import run_experiment
from retrograd.studies.validation.validate import validate_experiment
from retrograd.types import UserError
from retrograd.util.files import lock_folder

MakeRun = Callable[[str], Path]


def verdict(query: str = "what is the cup ?", **others: Any) -> dict[str, Any]:
    return {"query": query, "answer": "tea", "verdict": "right"} | others


def test_nothing_is_kept_unless_asked_for(served: Served, runs: RunFolders) -> None:
    reply = served.post("/api/feedback", verdict())
    assert reply.status == 403
    assert "--feedback" in reply.message
    assert not (runs["questions"] / "feedback.jsonl").exists()


def test_a_verdict_is_what_was_typed_and_nothing_else(own_run: MakeRun) -> None:
    run = own_run("questions")
    corrected = verdict(verdict="corrected", correction=" cup ", right_passages=["cup"], wrong_passages=["box"])
    with serving(run, feedback=True) as one:
        replies = [one.post("/api/feedback", body) for body in (verdict(), verdict(verdict="wrong"), corrected)]
        assert [(reply.status, reply.record["teaches"]) for reply in replies] == [
            (201, True),
            (201, False),
            (201, True),
        ]
        assert one.get("/api/runs").record["feedback"] is True
    lines = [json.loads(line) for line in (run / "feedback.jsonl").read_text().splitlines()]
    none = {"right_passages": [], "wrong_passages": []}
    asked = {"query": "what is the cup ?", "answer": "tea"}
    assert lines == [
        {**asked, "verdict": "right", "target": "tea", **none},
        {**asked, "verdict": "wrong", "target": None, **none},
        {**asked, "verdict": "corrected", "target": "cup", "right_passages": ["cup"], "wrong_passages": ["box"]},
    ]
    assert not list(run.glob("*.lock"))


def test_a_file_that_stays_locked_is_503(own_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrograd.serving.feedback._LOCK_SECONDS", 0.05)
    run = own_run("questions")
    with serving(run, feedback=True) as one:
        with lock_folder(run, run / ".feedback.jsonl.lock"):
            reply = one.post("/api/feedback", verdict())
            assert (reply.status, reply.headers["retry-after"]) == (503, "5")
        assert one.post("/api/feedback", verdict()).status == 201


def test_lines_stay_whole_under_many_clients_and_after_a_kill(own_run: MakeRun) -> None:
    run = own_run("questions")
    (run / "feedback.jsonl").write_text('{"query": "was being wri', encoding="utf-8")
    with serving(run, feedback=True) as one, ThreadPoolExecutor(8) as clients:
        bodies = [verdict(f"what is number {i} ?", answer="tea " * 500) for i in range(40)]
        assert {reply.status for reply in clients.map(lambda body: one.post("/api/feedback", body), bodies)} == {201}
    refused: list[UserError] = []
    read = list(read_verdicts(run / "feedback.jsonl", refused.append))
    assert {one.query for _, one in read} == {body["query"] for body in bodies}
    assert len(refused) == 1
    assert "feedback.jsonl, line 1: not valid JSON" in str(refused[0])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (verdict(verdict="perhaps"), "verdict is 'perhaps'"),
        (verdict(correction="cup"), "correction is 'cup'"),
        (verdict(verdict="corrected"), "correction is None"),
        (verdict(verdict="corrected", correction=" "), "needs the right answer"),
        (verdict(right_passages=["cup"], wrong_passages=["cup"]), "'cup' is marked as right and as not right"),
        (verdict(right_passages=["cup"] * 101), "mark fewer"),
        (verdict(" "), "blank"),
        (verdict(ip="192.0.2.1"), "unknown key 'ip'"),
        (verdict("the cup holds tea .", run="relations"), "<e1>"),
        (verdict("the <e1>cup</e1> holds <e2>tea</e2>", run="relations", answer="?"), "names no relation"),
    ],
)
def test_a_verdict_that_cannot_be_is_named(own_run: MakeRun, runs: RunFolders, body: Any, said: str) -> None:
    run = own_run("questions")
    with serving(run, runs["relations"], feedback=True) as one:
        reply = one.post("/api/feedback", body)
    assert (reply.status, said in reply.message) == (422, True), reply.body
    assert not (run / "feedback.jsonl").exists()


def learn(run: Path, file: Path, out: Path) -> Experiment:
    experiment = Experiment.load(run / "experiment.toml").with_settings([f"data.more={file}"])
    assert validate_experiment(experiment).findings.total("error") == 0
    run_experiment(experiment, out)
    return experiment


def test_a_training_learns_from_the_verdicts_of_its_run(own_run: MakeRun, tmp_path: Path) -> None:
    relations, questions, dialogues = own_run("relations"), own_run("questions"), own_run("dialogues")
    marked = "the <e1>rain</e1> holds <e2>tea</e2> ."
    turns = [
        {"role": "user", "text": "the rain ?"},
        {"role": "agent", "text": "in"},
        {"role": "user", "text": "what ?"},
    ]
    with serving(questions, relations, dialogues, feedback=True) as one:
        for body in (
            verdict(verdict="corrected", correction="rain", right_passages=["rain"], wrong_passages=["cup"]),
            verdict(verdict="wrong"),
            verdict(marked, run="relations", answer="holds", verdict="corrected", correction="part-of"),
            verdict(marked, run="relations", answer="part of", right_passages=["0"]),
            {"turns": turns, "run": "dialogues", "answer": "rain", "verdict": "right"},
        ):
            assert one.post("/api/feedback", body).status == 201
    data = learn(questions, questions / "feedback.jsonl", tmp_path / "a").data.load(0)
    assert [one.id for one in data.train[4:]] == ["feedback-1"]
    assert (data.train[4].query, data.train[4].targets) == ("what is the cup ?", ("rain",))
    assert data.train[4].gold_passages == ("rain",)
    data = learn(relations, relations / "feedback.jsonl", tmp_path / "b").data.load(0)
    assert [one.targets for one in data.train[4:]] == [("part of",), ("part of",)]
    assert len(data.base) == 6
    data = learn(dialogues, dialogues / "feedback.jsonl", tmp_path / "c").data.load(0)
    assert [turn.text for turn in data.train[-1].history] == ["the rain ?", "in", "what ?"]


def test_what_is_not_read_is_said(runs: RunFolders, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "feedback.jsonl"
    marked = {"query": "the <e1>cup</e1> holds <e2>tea</e2>", "answer": "holds", "target": "holds", "verdict": "right"}
    file.write_text(json.dumps({**marked, "right_passages": ["1"]}) + "\n")
    Experiment.load(runs["relations"] / "experiment.toml").with_settings([f"data.more={file}"]).data.load(0)
    said = " ".join(capsys.readouterr().err.split())
    assert "1 of 1 verdicts name the right answer" in said
    assert "1 passages marked (the training sentences are the passages) are not read" in said


@pytest.mark.parametrize(
    ("name", "record", "said"),
    [
        ("questions", {"query": "a", "answer": "b", "verdict": "right", "target": "c"}, "of a verdict 'right'"),
        ("questions", {"answer": "b", "verdict": "wrong"}, "expected a query or the turns"),
        ("questions", {"query": "a", "answer": "b", "verdict": "wrong", "target": "c"}, "else null"),
        ("questions", {"query": "a", "verdict": "wrong"}, "needs 'answer'"),
        ("questions", {"turns": [], "answer": "b", "verdict": "wrong"}, "expected a list of 1 to"),
        (
            "questions",
            {"turns": [{"role": "user", "text": "a"}], "answer": "b", "verdict": "right", "target": "b"},
            "expected a query",
        ),
        ("relations", {"query": "a", "answer": "holds", "verdict": "right", "target": "holds"}, "no entity is marked"),
        (
            "relations",
            {"query": "<e1>a</e1> b <e2>c</e2>", "answer": "d", "verdict": "right", "target": "d"},
            "no relation 'd'",
        ),
    ],
)
def test_bad_lines_are_refused_with_their_place(
    runs: RunFolders, tmp_path: Path, name: str, record: Any, said: str
) -> None:
    file = tmp_path / "feedback.jsonl"
    good = {"query": "<e1>a</e1> b <e2>c</e2>", "answer": "holds", "verdict": "wrong"}
    file.write_text(json.dumps(good) + "\n" + json.dumps(record) + "\n")
    experiment = Experiment.load(runs[name] / "experiment.toml").with_settings([f"data.more={file}"])
    with pytest.raises(UserError, match="line 2") as raised:
        experiment.data.load(0)
    assert said in str(raised.value)
    assert validate_experiment(experiment).findings.total("error") == 1
