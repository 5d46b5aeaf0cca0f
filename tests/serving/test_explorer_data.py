"""What the explorer asks for: runs, test examples, an objective's weights, the curves of a training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.serving.conftest import RunFolders, Served, serving

from retrograd.evaluation.laboratory.weights import weigh_candidates
from retrograd.experiments.open import open_run
from retrograd.objectives import NoRetrieval, TopKMarginal
from retrograd.objectives.jsa import JointStochasticApproximation
from retrograd.serving import tested
from retrograd.serving.curves import read_curves, require_run
from retrograd.serving.requests import ExamplesRequest
from retrograd.types import UserError

MakeRun = Callable[[str], Path]


def test_the_page_and_its_files_hold_nothing_of_a_run(served: Served) -> None:
    page = served.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("style.css", "explorer.css", "explorer.js", "uplot.min.js", "uplot.min.css"):
        assert f"/static/{name}" in page.body.decode()
        assert served.get(f"/static/{name}").status == 200
    for name in ("..%2Fexplorer.html", "LICENSE.md", "%00", "explorer.html"):
        assert served.get(f"/static/{name}").status == 404


def test_runs_are_described(served: Served) -> None:
    record = served.get("/api/runs").record
    by_name = {one["name"]: one for one in record["runs"]}
    assert [one["form"] for one in record["runs"]] == [*4 * ["question"], "dialogue", "marked sentence"]
    assert by_name["relations"]["labels"] == ["holds", "part-of"]
    assert by_name["relations"]["example"].count("<e1>") == 1
    assert (by_name["questions"]["passages"], by_name["questions"]["read"]) == (6, 3)
    assert (record["feedback"], record["watched"]) == (False, None)


def test_wrong_examples_come_first_and_can_be_filtered(served: Served) -> None:
    every = served.post("/api/examples", {"run": "questions"}).record
    correctness = [one["correctness"] for one in every["examples"]]
    assert correctness == sorted(correctness)
    assert every["found"] == every["all"] == 6
    wrong = served.post("/api/examples", {"run": "questions", "only": "wrong"}).record
    right = served.post("/api/examples", {"run": "questions", "only": "right"}).record
    assert wrong["found"] + right["found"] == 6
    cups = served.post("/api/examples", {"run": "questions", "contains": "The Cup", "limit": 1}).record
    assert [one["query"] for one in cups["examples"]] == ["who is the cup ?"]
    assert served.post("/api/examples", {"run": "questions", "offset": 6}).record["examples"] == []
    marked = served.post("/api/examples", {"run": "relations"}).record["examples"][0]["query"]
    assert served.post("/api/answer", {"query": marked, "run": "relations"}).status == 200


def test_what_cannot_be_judged_is_neither_wrong_nor_right() -> None:
    examples = [
        tested.TestedExample(str(i), "what", ("tea",), "ink", None, one) for i, one in enumerate((0.0, 1.0, None))
    ]
    for only, ids in (("all", ["0", "1", "2"]), ("wrong", ["0"]), ("right", ["1"])):
        page = tested.select_examples(examples, ExamplesRequest(only=only))["examples"]
        assert isinstance(page, list)
        assert [one["id"] for one in page if isinstance(one, dict)] == ids


def test_weights_of_the_marginal_are_the_responsibilities(runs: RunFolders) -> None:
    opened = open_run(runs["questions"])
    example, rng = opened.data.train[0], torch.Generator().manual_seed(0)
    found = weigh_candidates(opened.model, example, TopKMarginal(), 4, rng)
    joint = torch.tensor([one.log_prior + one.log_likelihood for one in found], dtype=torch.float64)
    assert [one.responsibility for one in found] == pytest.approx(joint.softmax(0).tolist())
    assert [one.generator_weight for one in found] == pytest.approx([one.responsibility for one in found])
    # The gradient of -log Σ p(z|x) p(y|x,z) in the logits of the whole base is p(z|x) - p(z|x,y).
    expected = [one.responsibility - torch.tensor(one.log_prior).exp().item() for one in found]
    assert [one.prior_pull for one in found] == pytest.approx(expected, abs=1e-6)
    assert found == sorted(found, key=lambda one: -one.responsibility)


def test_weights_of_one_training_example_are_served(served: Served) -> None:
    record = served.post("/api/weights", {"run": "questions", "example": 1}).record
    assert (record["query"], record["target"], record["of"]) == ("what is the box ?", "box", 4)
    assert sum(one["responsibility"] for one in record["candidates"]) == pytest.approx(1)
    assert served.post("/api/weights", {"run": "relations"}).status == 200
    assert "turns" in served.post("/api/weights", {"run": "dialogues"}).record
    assert "4 training examples" in served.post("/api/weights", {"run": "questions", "example": 4}).message
    assert "example is -1" in served.post("/api/weights", {"example": -1}).message


def test_objectives_that_lack_a_part_are_named(runs: RunFolders) -> None:
    opened = open_run(runs["questions"])
    example, rng = opened.data.train[0], torch.Generator().manual_seed(0)
    with pytest.raises(UserError, match="posterior"):
        weigh_candidates(opened.model, example, JointStochasticApproximation(), 3, rng)
    found = weigh_candidates(opened.model, example, NoRetrieval(), 3, rng)
    assert {one.prior_pull for one in found} <= {None, 0.0}


def test_curves_are_read_as_they_grow(runs: RunFolders, tmp_path: Path) -> None:
    require_run(runs["questions"])
    whole = read_curves(runs["questions"], 0)
    assert whole["ended"] is True
    assert whole["points"][0]["stage"]
    (tmp_path / "experiment.toml").touch()
    assert read_curves(tmp_path, 0) == {"points": [], "next": 0, "reset": False, "more": False, "ended": False}
    log = tmp_path / "metrics.jsonl"
    first = json.dumps({"stage": "training", "step": 1, "loss": 2.5, "note": "x"}) + "\n"
    log.write_text(first + '{"stage": "train', encoding="utf-8")
    read = read_curves(tmp_path, 0)
    assert (read["points"], read["next"]) == ([{"stage": "training", "step": 1, "loss": 2.5}], len(first))
    log.write_text(first + json.dumps({"stage": "training", "step": 2, "loss": 2.0}) + "\nno JSON\n", encoding="utf-8")
    assert [one["step"] for one in read_curves(tmp_path, read["next"])["points"]] == [2]
    assert read_curves(tmp_path, 10_000)["reset"] is True
    with pytest.raises(UserError, match="is not a run"):
        require_run(tmp_path / "nowhere")


def test_a_training_is_watched_without_a_run(tmp_path: Path) -> None:
    (tmp_path / "experiment.toml").touch()
    (tmp_path / "metrics.jsonl").write_text('{"stage": "training", "step": 1, "loss": 2.5}\n', encoding="utf-8")
    with serving(watched=tmp_path) as one:
        assert one.get("/api/runs").record == {"runs": [], "feedback": False, "watched": tmp_path.name}
        assert one.get("/api/curves").record["points"][0]["loss"] == 2.5
        assert one.get("/api/curves?from=x").status == 422
        assert one.post("/api/search", {"query": "a"}).status == 404


def test_no_training_is_watched(served: Served) -> None:
    assert "--watch" in served.get("/api/curves").message
