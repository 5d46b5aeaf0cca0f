"""The report of a run: figures by hand on a few sentences, files and refusals, and what test labels must not touch."""

from __future__ import annotations

import io
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from retrograd import __main__ as cli
from retrograd.evaluation.evaluate import vote
from retrograd.experiments.data.relations import RelationData
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import run_experiment
from retrograd.experiments.setting_changes import list_setting_changes
from retrograd.metrics.relations import SEMEVAL_LABELS as LABELS
from retrograd.metrics.relations import semeval_score
from retrograd.metrics.triggers import plain_words
from retrograd.objectives import NoRetrieval
from retrograd.report.page import format_page, print_report, save_page
from retrograd.studies.compare import read_labelled_run
from retrograd.studies.report import report_run
from retrograd.studies.slices import Learned, Slice
from retrograd.types import UserError

TRAIN = [
    *[("Ann", "built", "huts", "made")] * 4,
    *[("Ann", "saw", "huts", "none")] * 8,
    *[("Ann", "ate", "cake", "eats")] * 2,
]


def sentence(head: str, between: str, tail: str, relation: str) -> dict:
    text = f"{head} {between} {tail} ."
    start = len(head) + len(between) + 2
    return {"text": text, "head": [0, len(head)], "tail": [start, start + len(tail)], "relation": relation}


def write(path: Path, records: list[dict]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return str(path)


def run(folder: Path, answers: list[str], data: RelationData, **settings: int) -> Path:
    """A folder as `train` leaves it, with these labels as answers; "?" is no valid one."""
    folder.mkdir()
    (folder / "experiment.toml").write_text(Experiment(data=data, **settings).to_toml())
    loaded = data.load(0)
    (folder / "labels.json").write_text(json.dumps(RelationData().task_record(loaded.task)))
    told = [answer if answer == "?" else loaded.task.verbalise(answer) for answer in answers]
    write(folder / "predictions.jsonl", [{"id": e.id, "answer": a} for e, a in zip(loaded.test, told, strict=True)])
    return folder


def own_data(folder: Path, test: list[dict], train: list[tuple[str, str, str, str]] = TRAIN) -> RelationData:
    return RelationData(
        train=write(folder / "train.jsonl", [sentence(*one) for one in train]),
        test=write(folder / "test.jsonl", test),
        labels="from_train",
        negative="none" if any(one[-1] == "none" for one in train) else "",
    )


TEST = [
    sentence("Bob", "built", "it", "made"),  # explicit, 1 word between
    sentence("Bob", "has long since put up", "huts", "made"),  # implicit, 5 words
    sentence("Bob", "ate", "bread", "eats"),  # seen twice: too rare for a trigger
    sentence("Bob", "built and then sold again the", "hut", "none"),
    sentence("Bob", "saw", "it", "none"),
]


@pytest.fixture
def data(tmp_path: Path) -> RelationData:
    return own_data(tmp_path, TEST)


def slices(report, name: str) -> dict[str, Slice]:
    return {part.name: part for group in report.slices if group.name == name for part in group.slices}


def test_every_figure_of_five_sentences(data: RelationData, tmp_path: Path) -> None:
    path = run(tmp_path / "run", ["made", "none", "?", "made", "none"], data)
    found = report_run(path, [], tmp_path / "out", with_vote=False, resamples=100)
    own, trivial = found.systems
    # 1 right of 2 guessed and 3 gold relations
    assert (own.precision, own.recall, own.score) == pytest.approx((50, 100 / 3, 40))
    assert (own.accuracy, own.invalid_rate, own.negative_rate, found.negative_share) == pytest.approx((40, 20, 40, 40))
    assert own.negative_f1 == pytest.approx(50)
    assert own.interval is not None
    assert own.interval.low <= 40 <= own.interval.high
    assert (trivial.name, trivial.score, trivial.accuracy, trivial.interval) == ("always none", 0, 40, None)
    assert trivial.negative_f1 == pytest.approx(100 * 2 * 2 / 7)
    assert [(row.relation, row.items, row.f1) for row in found.relations] == [
        ("made", 2, pytest.approx(50)),
        ("eats", 1, 0),
    ]
    assert [(one.gold, one.answered, one.items, one.share) for one in found.confusions] == [
        ("eats", None, 1, 1.0),
        ("made", "none", 1, 0.5),
        ("none", "made", 1, 0.5),
    ]


def test_slices_by_hand(data: RelationData, tmp_path: Path) -> None:
    path = run(tmp_path / "run", ["made", "none", "?", "made", "none"], data)
    other = run(tmp_path / "other", ["made", "made", "eats", "none", "none"], data, seed=7)
    found = report_run(path, [other], tmp_path / "out", with_vote=False, resamples=100)
    trigger = slices(found, "trigger of the gold relation")
    assert {name: part.items for name, part in trigger.items()} == {"explicit": 1, "implicit": 1, "no trigger known": 1}
    assert (trigger["explicit"].run.score, trigger["implicit"].run.score) == (100, 0)
    assert trigger["implicit"].controls["other"].score == 100
    assert trigger["implicit"].interval is None  # one item is resampled to itself
    frequency = slices(found, "training sentences of the gold relation")
    assert {name: part.items for name, part in frequency.items()} == {"1-4": 3}
    between = slices(found, "words between the entities")
    assert {name: part.items for name, part in between.items()} == {"0-3": 3, "4-7": 2}
    # one missed relation, one false alarm on a negative
    assert (between["4-7"].run.score, between["4-7"].controls["other"].score) == (0, 100)
    assert {name: part.items for name, part in slices(found, "words in the sentence").items()} == {"1-14": 5}
    label = slices(found, "gold label")
    assert (label["a relation"].items, label["none"].items) == (3, 2)
    assert (label["none"].run.score, label["none"].run.accuracy) == (None, 50)
    control = found.systems[1]
    assert [(one.name, one.run, one.control) for one in control.changes] == [("seed", 0, 7)]
    assert control.gain is not None
    assert control.gain.difference == pytest.approx(40 - 100)


def test_test_labels_teach_the_slices_nothing(data: RelationData, tmp_path: Path) -> None:
    before = Learned.of(read_labelled_run(run(tmp_path / "one", ["none"] * 5, data)))
    labels = [record["relation"] for record in TEST]
    rotated = [record | {"relation": label} for record, label in zip(TEST, labels[1:] + labels[:1], strict=True)]
    after = Learned.of(read_labelled_run(run(tmp_path / "two", ["none"] * 5, own_data(tmp_path, rotated))))
    assert before == after
    assert [trigger.word for trigger in before.triggers["made"]] == ["built"]
    assert before.frequency == {"eats": 2, "made": 4, "none": 8}


def test_a_run_that_always_says_no_scores_0_like_the_trivial_line(data: RelationData, tmp_path: Path) -> None:
    path = run(tmp_path / "run", ["none"] * 5, data)
    own, trivial = report_run(path, [], tmp_path, with_vote=False, resamples=100).systems
    assert (own.score, own.accuracy, own.negative_f1) == (0, 40, trivial.negative_f1)
    assert own.interval is not None
    assert (own.interval.low, own.interval.high) == (0, 0)


@pytest.mark.parametrize("gold", ["made", "none"])
def test_one_item_has_no_interval_and_a_page(gold: str, tmp_path: Path) -> None:
    data = own_data(tmp_path, [sentence("Bob", "built", "it", gold)])
    path, other = run(tmp_path / "run", ["made"], data), run(tmp_path / "other", ["?"], data)
    found = report_run(path, [other], tmp_path / "out", with_vote=False, resamples=100)
    assert all(system.interval is None and system.gain is None for system in found.systems)
    save_page(found, tmp_path / "out")
    assert "nan" not in (tmp_path / "out" / "report.md").read_text()


def test_without_a_negative_label_the_trivial_answer_is_the_commonest_in_training(tmp_path: Path) -> None:
    train = [one for one in TRAIN if one[-1] != "none"]
    data = own_data(tmp_path, TEST[:3], train)
    path = run(tmp_path / "run", ["made", "eats", "eats"], data)
    found = report_run(path, [], tmp_path / "out", with_vote=False, resamples=100)
    assert found.systems[-1].name == "always made"
    assert found.systems[-1].score == pytest.approx(100 * 2 / 3)
    assert (found.negative_share, found.run.negative_f1, found.negative_row) == (None, None, None)
    assert "gold label" not in [group.name for group in found.slices]
    assert "no negative label" in format_page(found)


def test_names_with_signs_of_markdown_do_not_break_a_table(tmp_path: Path) -> None:
    train = [("Ann", "built", "huts", "a|b*"), ("Ann", "saw", "huts", "none")]
    data = own_data(tmp_path, [sentence("Bob", "built", "it", "a|b*"), sentence("Bob", "saw", "it", "none")], train)
    path = run(tmp_path / "run$1|2", ["none", "a|b*"], data)
    found = report_run(path, [], tmp_path / "out", with_vote=False, resamples=100)
    save_page(found, tmp_path / "out")
    text = (tmp_path / "out" / "report.md").read_text()
    assert "| a\\|b\\* " in text
    rows = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    blocks = "\n".join(line if line.startswith("|") else "" for line in text.splitlines()).split("\n\n")
    assert rows
    for block in filter(None, (one.strip() for one in blocks)):
        assert len({line.replace("\\|", "").count("|") for line in block.splitlines()}) == 1


def test_semeval_is_scored_officially(tmp_path: Path) -> None:
    """With a control and invalid answers: the page's figures are the scorer's own."""
    rng = np.random.default_rng(0)
    records = [
        sentence("Ann", f"{label.casefold()[:9]} {'so ' * (n % 9)}", "it", label) for label in LABELS for n in range(9)
    ]
    data = RelationData(train=write(tmp_path / "train.jsonl", records), test=write(tmp_path / "test.jsonl", records))
    gold = [record["relation"] for record in records]
    some = [label if rng.random() < 0.7 else LABELS[rng.integers(len(LABELS))] for label in gold]
    bad = ["?" if rng.random() < 0.1 else label for label in some]
    one, two = run(tmp_path / "some", some, data), run(tmp_path / "bad", bad, data)
    found = report_run(one, [two], tmp_path / "out", with_vote=False, resamples=100)
    assert found.run.score == pytest.approx(semeval_score(gold, some).macro_f1)
    assert found.systems[1].invalid_rate == pytest.approx(100 * bad.count("?") / len(bad))
    lengths = slices(found, "words in the sentence")
    assert sum(part.items for part in lengths.values()) == len(gold)
    rows = [row for row, record in enumerate(records) if len(plain_words(record["text"])) < 15]
    assert len(rows) == lengths["1-14"].items
    part = semeval_score([gold[row] for row in rows], [some[row] for row in rows])
    assert lengths["1-14"].run.score == pytest.approx(part.macro_f1)
    positives = sum(label != "Other" for label in gold)
    assert sum(part.items for part in slices(found, "trigger of the gold relation").values()) == positives
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["systems"][0]["score"] == found.run.score
    assert saved["learned"]["frequency"]["Cause-Effect(e2,e1)"] == 9
    save_page(found, tmp_path / "out")
    assert (tmp_path / "out" / "slices.png").stat().st_size > 10_000
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"**{found.run.score:.1f}** [" in text
    stream = io.StringIO()
    print_report(found, Console(file=stream, width=120))
    assert "always Other" in stream.getvalue()


def test_what_cannot_be_reported_says_so(data: RelationData, tmp_path: Path) -> None:
    one = run(tmp_path / "one", ["none"] * 5, data)
    with pytest.raises(UserError, match="one is given twice"):
        report_run(one, [one], tmp_path / "out", with_vote=False)
    more = tmp_path / "more"
    more.mkdir()
    wider = own_data(more, TEST, [*TRAIN, ("Ann", "owns", "huts", "owns")])
    with pytest.raises(UserError, match=r"choose among other labels \('owns' is in one of them alone\)"):
        report_run(one, [run(tmp_path / "wider", ["none"] * 5, wider)], tmp_path / "out", with_vote=False)
    signed = replace(data, negative="eats")
    with pytest.raises(UserError, match=r"negative is 'none' in .*, 'eats' in"):
        report_run(one, [run(tmp_path / "signed", ["none"] * 5, signed)], tmp_path / "out", with_vote=False)
    fewer = tmp_path / "fewer"
    fewer.mkdir()
    with pytest.raises(UserError, match="other test items"):
        report_run(one, [run(tmp_path / "less", ["none"] * 4, own_data(fewer, TEST[:4]))], tmp_path / "out", False)
    assert not (tmp_path / "out").exists()
    (one / "predictions.jsonl").unlink()
    with pytest.raises(UserError, match=r"retrograd evaluate .*one --out .*one$"):
        report_run(one, [], tmp_path / "out", with_vote=False)


def test_predictions_that_are_not_those_of_the_scores_are_noted(data: RelationData, tmp_path: Path) -> None:
    path = run(tmp_path / "run", ["none"] * 5, data)
    (path / "scores.json").write_text(json.dumps({"answers": {"micro_f1": 12.0}}))
    found = report_run(path, [], tmp_path / "out", with_vote=False, resamples=100)
    assert "scores.json says micro_f1 12.00, the predictions say 0.00" in found.notes[0]


def test_changes_of_an_objective_name_what_the_control_has() -> None:
    own, other = Experiment(), Experiment().with_settings(["objective.kind=NoRetrieval", "training.passages=0"])
    changes = {change.name: change.control for change in list_setting_changes(own, other)}
    assert changes["objective.kind"] == "NoRetrieval"
    assert changes["training.passages"] == 0
    assert not any(name.startswith("objective.") and name != "objective.kind" for name in changes)
    assert list_setting_changes(own, replace(own, name="another")) == []


@pytest.mark.slow
def test_a_trained_run_stands_beside_the_vote_of_its_own_neighbours(
    data: RelationData, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    experiment = Experiment(
        name="tiny",
        data=data,
        retriever=RetrieverSettings(model=str(tiny_encoder)),
        generator=GeneratorSettings(model=str(tiny_seq2seq)),
        warm_start=WarmStartSettings(epochs=0),
        training=TrainingSettings(epochs=1, passages=2, precision="fp32"),
    )
    closed = replace(experiment, objective=NoRetrieval(), training=replace(experiment.training, passages=0))
    path, other = run_experiment(experiment, tmp_path / "run").path, run_experiment(closed, tmp_path / "closed").path
    words = ["report", str(path), str(other), "--out", str(tmp_path / "out"), "--resamples", "100"]
    cli.app(words, standalone_mode=False)
    printed = capsys.readouterr().out
    assert "kNN vote" in printed
    assert f"The page is {tmp_path / 'out' / 'report.html'}; its figures as text are in" in printed
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [one["kind"] for one in saved["systems"]] == ["run", "control", "vote", "trivial"]
    assert saved["systems"][0]["score"] == json.loads((path / "scores.json").read_text())["answers"]["micro_f1"]
    opened = open_run(path)
    told = [opened.task.relation_of(answer) for answer in vote(opened.model, opened.data.test)]
    gold = [record["relation"] for record in TEST]
    right = sum(answer == label for answer, label in zip(told, gold, strict=True))
    assert saved["systems"][2]["accuracy"] == pytest.approx(100 * right / 5)
    text = (tmp_path / "out" / "report.md").read_text()
    assert "`training.passages = 0`" in text
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "report.md",
        "report.json",
        "slices.png",
        "confidence.png",
    }

    without = report_run(other, [], tmp_path / "closed-out", resamples=100)
    assert [one.kind for one in without.systems] == ["run", "trivial"]
    assert "retrieves nothing" in without.notes[0]


def test_answers_that_had_to_be_read_by_rule_are_told(data: RelationData, tmp_path: Path) -> None:
    exact = run(tmp_path / "exact", ["made", "none", "?", "none", "eats"], data)
    dressed = run(tmp_path / "dressed", ["made", "none", "?", "none", "eats"], data)
    records = [json.loads(line) for line in (dressed / "predictions.jsonl").read_text().splitlines()]
    records[0]["answer"] = f"**{records[0]['answer']}**."
    write(dressed / "predictions.jsonl", records)
    pages = [
        report_run(one, [], tmp_path / f"{one.name}-out", with_vote=False, resamples=100) for one in (exact, dressed)
    ]
    assert pages[0].run.score == pages[1].run.score
    notes = [[note for note in one.notes if "by the rules of refinement" in note] for one in pages]
    assert notes[0] == []
    assert notes[1][0].startswith("20.0 % of the answers")


def test_the_page_has_what_confidence_is_worth_where_predictions_state_it(data: RelationData, tmp_path: Path) -> None:
    folder = run(tmp_path / "run", ["made", "none", "eats", "made", "none"], data)
    out = tmp_path / "report"
    assert report_run(folder, [], out, with_vote=False, resamples=100).confidence is None
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    stated = [line | {"log_probability": math.log(p)} for line, p in zip(lines, (0.9, 0.5, 0.8, 0.6, 0.7), strict=True)]
    write(folder / "predictions.jsonl", stated)
    report = report_run(folder, [], out, with_vote=False, resamples=100)
    found = report.confidence
    assert found is not None
    # Three answers name a relation: 0.9 and 0.8 are right, 0.6 is not. "none" covers nothing.
    assert (found.metric, found.kind, found.coverage) == ("accuracy", "among permitted answers", 0.6)
    assert found.risk == pytest.approx(1 / 3)
    assert found.area == pytest.approx((0 + 0 + 1 / 3) / 3)
    assert found.calibration_error == pytest.approx((0.1 + 0.5 + 0.2 + 0.6 + 0.3) / 5)
    save_page(report, out)
    page = (out / "report.md").read_text()
    assert "## Confidence" in page
    assert "ECE 34.0%" in page
    assert "|    60.0% | 33.3% |" in page
    assert (out / "confidence.png").stat().st_size > 0
    assert json.loads((out / "report.json").read_text())["confidence"]["coverage"] == 0.6
