"""A run fits its threshold on development data, keeps it, and answers by it in every command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.experiments.data.files import write_lines
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.experiments.data.free_answers import QuestionData
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.experiments.settings import EvaluationSettings
from retrograd.types import UserError
from retrograd.util.text_files import read_json, read_jsonl

PASSAGES = [("cup", "the cup holds tea ."), ("box", "the box holds rain ."), ("car", "the wheel of the car .")]
QUESTIONS = ["what holds tea ?", "what holds rain ?", "what of car ?", "who is alpha ?"]


@pytest.fixture
def experiment(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> Experiment:
    """Return an experiment of which nobody knows the right answers: all are wrong but for those written below."""
    base = write_lines(tmp_path / "base.jsonl", [{"id": key, "title": key, "text": text} for key, text in PASSAGES])
    asked = [
        {"id": f"q{i}", "question": text, "answers": ["never said"], "gold_passages": ["cup"]}
        for i, text in enumerate(QUESTIONS)
    ]
    files = {part: write_lines(tmp_path / f"{part}.jsonl", asked) for part in ("train", "dev", "test")}
    return Experiment(
        data=QuestionData(base=base, **files),
        retriever=RetrieverSettings(model=str(tiny_encoder)),
        generator=GeneratorSettings(model=str(tiny_seq2seq), max_target_tokens=3),
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, passages=2, precision="fp32"),
    )


@pytest.fixture
def half_right(experiment: Experiment, tmp_path: Path) -> Experiment:
    """Return the experiment with data of which its own model answers the two most confident questions rightly.

    Training reads other files, so that the model stays the same; answers come from a run without a threshold.
    """
    run = run_experiment(experiment, tmp_path / "plain")
    lines = [line for _, line in read_jsonl(run.path / "predictions.jsonl")]
    best = sorted(lines, key=lambda line: -float(str(line["log_probability"])))[:2]
    right = {str(line["id"]): str(line["answer"]) for line in best}
    asked = [
        {"id": f"q{i}", "question": text, "answers": [right.get(f"q{i}", "never said")], "gold_passages": ["cup"]}
        for i, text in enumerate(QUESTIONS)
    ]
    data = experiment.data
    assert isinstance(data, QuestionData)
    files = {part: write_lines(tmp_path / f"{part}-right.jsonl", asked) for part in ("dev", "test")}
    return replace(experiment, data=replace(data, **files))


def test_a_run_keeps_its_threshold_and_every_command_answers_by_it(half_right: Experiment, tmp_path: Path) -> None:
    plain = run_experiment(half_right, tmp_path / "never").path
    assert not (plain / "abstention.json").exists()
    run = run_experiment(half_right.with_settings(["evaluation.abstain=0"]), tmp_path / "run").path
    before, after = ([line for _, line in read_jsonl(path / "predictions.jsonl")] for path in (plain, run))
    withheld = [line for line in after if "withheld" in line]
    assert len(withheld) == 2
    for old, new in zip(before, after, strict=True):  # the answers alone have changed, and what was one is kept
        assert old["answer"] == new.get("withheld", new["answer"])
        same = old.keys() - {"answer"}
        assert {name: old[name] for name in same} == {name: new[name] for name in same}
    assert {line["answer"] for line in withheld} == {"cannot answer"}
    fitted, scores = read_json(run / "abstention.json"), read_json(run / "scores.json")
    assert isinstance(fitted, dict)
    assert isinstance(scores, dict)
    assert (fitted["coverage"], fitted["risk"], fitted["risk_before"], fitted["largest_risk"]) == (50.0, 0.0, 50.0, 0.0)
    assert isinstance(scores["confidence"], dict)
    assert (scores["confidence"]["coverage"], scores["confidence"]["risk"]) == (50.0, 0.0)
    assert read_json(run / "model" / "model.json")["abstain_below"] == fitted["abstain_below"]  # pyright: ignore
    opened = open_run(run)
    assert [one.answer for one in opened.model.predict(opened.data.test, 2)] == [line["answer"] for line in after]

    command = CliRunner()
    result = command.invoke(app, ["predict", str(run), str(tmp_path / "test-right.jsonl")])
    assert [json.loads(line) for line in result.stdout.splitlines() if line.startswith("{")] == after
    asked = {f"q{i}": text for i, text in enumerate(QUESTIONS)}
    result = command.invoke(app, ["search", str(run), asked[str(withheld[0]["id"])], "-k", "2"])
    assert "answer: cannot answer; withheld, as below the run's threshold" in result.output
    given = next(line for line in after if "withheld" not in line)
    result = command.invoke(app, ["search", str(run), asked[str(given["id"])], "-k", "2"])
    assert "withheld" not in result.output
    cited = given["citations"]
    assert isinstance(cited, list)
    assert isinstance(cited[0], dict)
    assert f"{cited[0]['probability']:.1%}  {cited[0]['passage_id']} [" in result.output
    assert result.output.index("p(z|x,y)  cited passage") < result.output.index("p(z|x)  passage")
    result = command.invoke(app, ["evaluate", str(run), "--confidence", "--passages", "1"])
    assert result.exit_code == 0, result.output
    for words in ("citation_precision@1", "citation_chance", "ece ", "aurc ", "| coverage |", "| mean confidence |"):
        assert words in result.output
    assert "was fitted at 2 passages, not at 1" in " ".join(result.output.split())


def test_a_risk_that_no_threshold_keeps_leaves_no_answer(
    experiment: Experiment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_experiment(experiment.with_settings(["evaluation.abstain=0.5"]), tmp_path / "run").path
    lines = [line for _, line in read_jsonl(run / "predictions.jsonl")]
    assert {line["answer"] for line in lines} == {"cannot answer"}
    assert all("withheld" in line for line in lines)
    said = " ".join(capsys.readouterr().err.split())
    assert "no answer will be given: whatever the threshold, more than 50% of the answers" in said
    scores = read_json(run / "scores.json")
    assert isinstance(scores, dict)
    assert "citations" not in scores  # no answer was given, so none cites anything


@pytest.mark.parametrize("value", ["1", "1.5", "-0.1", "often", "true"])
def test_what_is_no_share_is_refused(value: str) -> None:
    with pytest.raises(UserError, match=r"(?s)abstain is .*expected .*'?never'?"):
        Experiment().with_settings(["data.dev_from_train=5", f"evaluation.abstain={value}"])


def test_settings_of_thresholds_are_read_and_written() -> None:
    with pytest.raises(UserError, match=r'abstain is nan; expected "never"'):
        EvaluationSettings(abstain=float("nan"))
    with pytest.raises(UserError, match=r"evaluation\.abstain needs development data; set data\.dev to a file"):
        Experiment().with_settings(["evaluation.abstain=0.2"])
    assert Experiment().evaluation.abstain == "never"
    changed = Experiment().with_settings(["data.dev_from_train=5", "evaluation.abstain=0"])
    assert changed.evaluation.abstain == 0.0
    assert "abstain = 0.0" in changed.to_toml()
