"""A run that `rg.train` made is a run like any other: it is continued after a kill, and every command works on it."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from tests.experiments.test_resume import differing

import retrograd as rg
from retrograd.__main__ import app

pytestmark = pytest.mark.slow

PROGRAM = """
import retrograd as rg

records = [{{"question": f"what holds tea ? number {{i}}", "answers": ["cup", "box"]}} for i in range(6)]
passages = [{{"title": "cup", "text": f"the cup number {{i}} holds tea from the box ."}} for i in range(8)]
model = rg.RagModel.from_pretrained(
    retriever={encoder!r},
    generator={generator!r},
    task=rg.QuestionAnswering(),
    base=rg.KnowledgeBase.from_passages(rg.read_passages(passages)),
    posterior=True,
    max_target_tokens=4,
)
rg.train(
    model,
    records,
    eval_examples=records,
    out=out,
    objective=rg.JointStochasticApproximation(sampler="metropolis", draws=2, chain="carried"),
    config=rg.TrainingConfig(
        epochs=3,
        batch_size=4,
        passages=2,
        retriever_learning_rate=1e-2,
        generator_learning_rate=1e-2,
        refresh_every=2,
        save_every=2,
        log_every=1,
    ),
)
"""
KILLS = (
    "retrograd.rag.rag_model:RagModel.save:1",  # of the model that training begins with
    "retrograd.training.run.checkpoints:Checkpoints.after_step:5",
    "retrograd.experiments.run:evaluate_experiment:1",
)


def killed(program: Path, out: Path, *kills: str) -> str:
    """Return what a process printed that trained into ``out``, was killed as ``kills`` say, and went on each time."""
    script = Path(__file__).with_name("killed_training.py")
    words = [sys.executable, str(script), str(program), str(out), *kills]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_killed_run_is_continued_to_the_same_end(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    program, out, whole = tmp_path / "program.py", tmp_path / "run", tmp_path / "whole"
    program.write_text(PROGRAM.format(encoder=str(tiny_encoder), generator=str(tiny_seq2seq)), encoding="utf-8")
    runpy.run_path(str(program), init_globals={"out": out})
    out.rename(whole)  # the settings of a run name its folder, so the other one has the same
    printed = killed(program, out, *KILLS)
    assert printed.count("killed") == len(KILLS), printed
    assert differing(out, whole) == []


QUESTIONS = [{"question": f"what holds tea ? number {i}", "answers": ["cup"]} for i in range(4)]
TURNS = [{"history": [f"user: what holds tea ? number {i}"], "answer": "the cup"} for i in range(4)]
SENTENCES = [
    {"text": f"the <e1>cup</e1> number {i} {word} <e2>tea</e2> .", "label": label}
    for i, (word, label) in enumerate([("holds", "content"), ("causes", "effect")] * 3)
]
PASSAGES = [{"title": "cup", "text": f"the cup number {i} holds tea ."} for i in range(4)]
KINDS = {
    "questions": (rg.QuestionAnswering(), QUESTIONS, "what holds tea ?"),
    "dialogue": (rg.GroundedDialogue(), TURNS, "what holds tea ?"),
    "relations": (
        rg.RelationExtraction.from_labels(["content", "effect"]),
        SENTENCES,
        "the <e1>cup</e1> holds <e2>tea</e2> .",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def run(kind: str, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> rg.Run:
    task, records, _ = KINDS[kind]
    passages = rg.read_passages(PASSAGES)
    if isinstance(task, rg.RelationExtraction):
        passages = [task.passage(one) for one in rg.read_relations(records)]
    model = rg.RagModel.from_pretrained(
        retriever=str(tiny_encoder),
        generator=str(tiny_seq2seq),
        task=task,
        base=rg.KnowledgeBase.from_passages(passages),
        max_target_tokens=4,
    )
    config = rg.TrainingConfig(epochs=1, batch_size=4, passages=2)
    return rg.train(
        model, records, eval_examples=records, out=tmp_path / "run", objective=rg.TopKMarginal(), config=config
    )


def command(*words: object) -> None:
    app([str(word) for word in words], standalone_mode=False)


def test_every_command_works_on_it(kind: str, run: rg.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, records, query = KINDS[kind]
    answer = run.model.answer(query)

    command("search", run.path, query, "-k", "2")
    printed = capsys.readouterr().out
    assert f"answer: {answer.answer or '(empty)'}" in printed
    assert printed.count("%  [") == 2

    command("evaluate", run.path, "--out", tmp_path / "again")
    scores = json.loads((run.path / "scores.json").read_text(encoding="utf-8"))
    assert json.loads((tmp_path / "again" / "scores.json").read_text(encoding="utf-8")) == scores

    new = tmp_path / "new.jsonl"
    new.write_text("".join(json.dumps(record) + "\n" for record in records[:2]), encoding="utf-8")
    command("predict", run.path, new, "--out", tmp_path / "answers.jsonl")
    answers = (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    expected = (run.path / "predictions.jsonl").read_text(encoding="utf-8").splitlines()[:2]
    assert [json.loads(one)["rows"] for one in answers] != []
    assert [json.loads(one)["answer"] for one in answers] == [json.loads(one)["answer"] for one in expected]

    capsys.readouterr()
    command("lab", run.path, "--queries", "2", "--redraws", "2", "--objectives", "TopKMarginal,JSA")
    assert "Advice: " in capsys.readouterr().out
    assert json.loads((run.path / "lab" / "lab.json").read_text(encoding="utf-8"))["estimators"]

    command("compare", run.path, run.path)
    command("report", run.path, "--out", tmp_path / "report", "--resamples", "100")
    page = (tmp_path / "report" / "report.md").read_text(encoding="utf-8")
    assert ("kNN vote" in page) == (kind == "relations")
    assert "| always " in page
    assert "Before training" in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
