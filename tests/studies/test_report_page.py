"""The record of a run's page: every kind of data, figures by hand, unfinished runs, and what a folder may lack."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.page_runs import KINDS, write_log, write_run

from retrograd.evaluation.kept_neighbours import read_neighbours
from retrograd.experiments.controls import oracle
from retrograd.recipes import recipe
from retrograd.report.answer_page import format_answer_page
from retrograd.report.page import format_page
from retrograd.report.run_page import format_run_page
from retrograd.studies.report import RelationReport
from retrograd.studies.report_answers import AnswerReport
from retrograd.studies.report_confusions import tabulate_confusions
from retrograd.studies.report_log import read_log
from retrograd.studies.report_neighbours import SupportedShare
from retrograd.studies.report_page import RunPage, build_page, build_progress_page
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError

kinds = pytest.mark.parametrize("kind", KINDS)


def page_of(folder: Path, *controls: Path) -> RunPage:
    return build_page(folder, controls, with_vote=False, resamples=100)[0]


@kinds
def test_every_kind_has_a_verdict_controls_neighbours_and_curves(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind)
    other = write_run(tmp_path / "other", kind, right=1, seed=1)
    before = sorted(tmp_path.rglob("*"))
    page, report = build_page(run, [other], with_vote=False, resamples=100)
    assert sorted(tmp_path.rglob("*")) == before  # a page is built by reading alone
    assert (page.kind, page.state) == (kind, "finished")
    assert isinstance(report, RelationReport if kind == "relations" else AnswerReport)
    report.save(tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["name"] == "run"
    systems = page.systems
    assert systems is not None
    assert [(one.name, one.kind) for one in systems.lines[:2]] == [("run", "run"), ("other", "control")]
    assert systems.lines[-1].kind == "trivial"
    assert all(len(line.values) == len(systems.columns) for line in systems.lines)
    assert {"seed", "data.train", "data.test"} <= {change.name for change in systems.lines[1].changes}
    assert f"{systems.metric[1:]} {systems.lines[0].score:.1f} [" in page.verdict[0]
    assert "over the control other" in page.verdict[0]
    assert page.verdict[1] == (
        "The nearest passage supports the target for 0.0 % of 4 sampled test examples before training, for 100.0 % "
        "after."
    )
    assert page.sample is not None
    # Those answered worst come first.
    assert [one.is_wrong for one in page.sample.examples] == [True, True, False, False]
    assert [line.supports for line in page.sample.examples[0].after] == [True, False]
    assert {hub.times for hub in page.hubs} == {2}
    assert dict(page.facts)["test examples"] == "4"
    assert {"loss", "the index finds what fresh embeddings would"} <= {chart.title for chart in page.charts}
    assert page.slices or kind != "relations"
    assert page.confidence is not None
    assert page.retrieval == {"recall@1": 75.0}
    assert (page.relations != ()) == (page.confusions is not None) == (kind == "relations")


def test_scores_and_slices_of_answers_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    _, report = build_page(run, [], resamples=100)
    assert isinstance(report, AnswerReport)
    own, trivial = report.systems
    assert (own.score, own.scores["f1"], own.gain) == (50.0, 50.0, None)
    assert own.interval is not None
    assert own.interval.low <= 50 <= own.interval.high
    # The first training answer, of four equally frequent ones, is right once.
    assert (trivial.name, trivial.score, trivial.interval) == ("always 'thing0 plain'", 25.0, None)
    assert report.slices == []  # each grouping puts all examples into one part: no slice says anything


def test_slices_of_answers_say_whether_what_was_read_holds_an_answer(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    predictions = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    predictions[3]["rows"] = [0]
    (run / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in predictions))
    _, report = build_page(run, [write_run(tmp_path / "other", "questions", right=4)], resamples=100)
    assert isinstance(report, AnswerReport)
    (group,) = report.slices
    assert group.name == "passages that were read"
    assert [(part.name, part.items, part.run.score) for part in group.slices] == [
        ("hold an answer", 3, pytest.approx(200 / 3)),
        ("hold none", 1, 0.0),
    ]
    assert [part.controls["other"].score for part in group.slices] == [100.0, 100.0]


def test_without_controls_the_verdict_says_that_nothing_is_compared(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "run", "dialogue"))
    assert "No control run was given" in page.verdict[0]


def test_the_best_of_several_controls_is_the_one_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, "questions", right=right) for name, right in (("a", 2), ("b", 1), ("c", 3))]
    assert "-25.0 [" in page_of(*runs).verdict[0]
    assert "over c, the best of 2 controls" in page_of(*runs).verdict[0]


@kinds
def test_an_oracle_is_a_reference_and_no_rival(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind)
    told = write_run(tmp_path / "told", kind, right=4, change=oracle)
    other = write_run(tmp_path / "other", kind, right=1, seed=1)
    page = page_of(run, told, other)
    assert "over the control other" in page.verdict[0]
    assert "told is told the answer and scores 100.0: a reference, no rival." in page.verdict[0]
    assert page.systems is not None
    assert [one.name for one in page.systems.lines if one.is_told] == ["told"]
    alone, report = build_page(run, [told], with_vote=False, resamples=100)
    assert "No control run was given" in alone.verdict[0]
    assert report is not None
    text = format_page(report) if isinstance(report, RelationReport) else format_answer_page(report)
    assert "| told (is told)" in text
    assert "No control run was given" in text
    assert "This run is told the answer at test time" in page_of(told, other).verdict[1]


@kinds
def test_a_run_that_trains_has_a_page_of_what_is_known(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", kind, finished=False)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"stage": "training", "st')  # a line that is being written
    page, report = build_page(run, [])
    assert report is None
    assert page.state == "training"
    assert page.verdict[0] == "Training has not ended; last logged: step 6 of training."
    assert page.verdict[1].endswith("0.0 % of 4 sampled test examples before training.")
    assert page.sample is not None
    assert all(one.answered is None and not one.after for one in page.sample.examples)
    assert [alarm.name for alarm in page.alarms] == ["prior flat"]
    assert page.systems is None


def test_a_run_that_has_just_begun_and_one_without_test_data(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions", finished=False)
    for name in ("metrics.jsonl", "neighbours-before.jsonl", "labels.json", "environment.json"):
        (run / name).unlink()
    page = build_progress_page(run)
    assert page.verdict == ("Nothing is logged yet.",)
    assert (page.charts, page.costs, page.sample, page.environment) == ((), (), None, ())
    text = (run / "experiment.toml").read_text()
    (run / "experiment.toml").write_text(
        "\n".join("test = ''" if line.startswith("test =") else line for line in text.splitlines())
    )
    (run / "model").mkdir()
    assert build_progress_page(run).state == "without test data"


def test_controls_of_a_run_without_scores_are_named_as_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions", finished=False)
    other = write_run(tmp_path / "other", "questions")
    assert not any("other" in sentence for sentence in build_page(run, [])[0].verdict)
    assert build_page(run, [other])[0].verdict[-1].startswith("Left out, as this run has no scores yet: other.")


def test_a_run_that_is_trained_and_not_evaluated_is_not_called_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    (run / "scores.json").unlink()
    page = build_progress_page(run)
    assert page.state == "not evaluated"
    assert "retrograd evaluate run --out run" in page.verdict[0]
    assert page.verdict[1].endswith("for 100.0 % after.")
    html = format_run_page(page)
    assert 'http-equiv="refresh"' not in html
    assert "has not ended" not in html
    # The scores are written last, the answers before them: a run without answers is no more finished.
    finished = write_run(tmp_path / "answerless", "questions")
    (finished / "predictions.jsonl").unlink()
    assert build_progress_page(finished).state == "not evaluated"


def test_examples_without_a_target_are_not_counted_among_those_whose_nearest_passage_is_judged(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    for name, changes in (("before", [{"supports": [], "gold": []}]), ("after", [{}, {"rows": [], "prior": []}])):
        path = run / f"neighbours-{name}.jsonl"
        kept = [json.loads(line) for line in path.read_text().splitlines()]
        for one, change in zip(kept, changes, strict=False):
            one |= change | ({"supports": []} if "rows" in change else {})
        path.write_text("".join(json.dumps(one) + "\n" for one in kept))
    sample = page_of(run).sample
    assert sample is not None
    assert sample.supported_before == SupportedShare(0.0, 3)
    assert sample.supported_after == SupportedShare(75.0, 4)  # one for which nothing is found is not supported
    assert page_of(run).verdict[1] == (
        "The nearest passage supports the target for 0.0 % of 3 sampled test examples before training, for 75.0 % of 4 "
        "sampled test examples after training."
    )
    (run / "neighbours-before.jsonl").unlink()
    assert page_of(run).verdict[1].endswith("for 75.0 % of 4 sampled test examples after training.")


def test_a_run_of_an_older_version_has_a_page_without_neighbours(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "relations")
    for name in ("before", "after"):
        (run / f"neighbours-{name}.jsonl").unlink()
    page = page_of(run)
    assert page.sample is None
    assert len(page.verdict) == 1


def test_rows_that_the_base_does_not_have_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    path = run / "neighbours-after.jsonl"
    path.write_text(path.read_text().replace('"rows": [0, 1]', '"rows": [99, 1]'))
    assert read_neighbours(path)[0].rows == (99, 1)
    sample = page_of(run).sample
    assert sample is not None
    assert sorted(len(one.after) for one in sample.examples) == [1, 2, 2, 2]


def test_settings_are_compared_with_the_recipe_that_the_run_began_from_and_else_with_the_defaults(
    tmp_path: Path,
) -> None:
    run = write_run(tmp_path / "run", "questions")
    page = build_progress_page(run)
    assert page.compared_with == "the defaults"
    assert {"data.base", "data.train", "data.test"} == {change.name for change in page.changes}
    experiment = recipe("semeval-joint").replace(training={"epochs": 7})
    (run / "experiment.toml").write_text(experiment.to_toml())
    (run / "recipe.toml").write_text(recipe("semeval-joint").to_toml())
    (run / "labels.json").unlink()
    page = build_progress_page(run)
    assert page.compared_with == "the recipe semeval-joint"
    assert [(change.name, change.run) for change in page.changes] == [("training.epochs", 7)]
    # A recipe of today that has the name of the experiment is not the one that the run began from.
    (run / "recipe.toml").write_text(recipe("semeval-joint").replace(seed=5).to_toml())
    changes = build_progress_page(run).changes
    assert [(change.name, change.run, change.control) for change in changes] == [
        ("seed", 0, 5),
        ("training.epochs", 7, recipe("semeval-joint").training.epochs),
    ]
    (run / "recipe.toml").unlink()
    assert build_progress_page(run).compared_with == "the defaults"


@kinds
def test_nothing_that_people_share_names_a_folder_of_this_machine(kind: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "a" / "run", kind)
    other = write_run(tmp_path / "b" / "run", kind, right=1, seed=1)
    page, report = build_page(run, [other], with_vote=False, resamples=100)
    assert report is not None
    report.save(tmp_path)
    text = format_page(report) if isinstance(report, RelationReport) else format_answer_page(report)
    for shared in (format_run_page(page), text, (tmp_path / "report.json").read_text()):
        assert str(tmp_path) not in shared
    assert page.systems is not None
    assert [line.name for line in page.systems.lines[:2]] == ["a/run", "b/run"]
    changes = {change.name: (change.run, change.control) for change in page.systems.lines[1].changes}
    assert changes["data.train"] == ("train.jsonl", "train.jsonl (another one)")


def test_the_confusions_of_few_labels_by_hand(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "relations")
    confusions = page_of(run).confusions
    assert confusions is not None
    assert confusions.labels == ("relation0 plain", "relation1 plain")
    assert confusions.columns == (*confusions.labels, "(no valid answer)")
    assert confusions.counts == ((1, 0, 1), (0, 1, 1))
    assert not confusions.has_rarer


def test_rare_labels_that_are_taken_for_each_other_are_not_on_the_diagonal() -> None:
    frequent = [f"frequent{place:02}" for place in range(23)]
    gold = [*frequent, *frequent, "rare a", "rare b", "rare c", "frequent00"]
    answers = [*frequent, *frequent, "rare b", "rare b", None, "rare d"]
    table = tabulate_confusions(gold, answers)
    assert table.labels == (*frequent, "(all rarer ones)")
    assert table.columns == (*frequent, "(the right rarer one)", "(another rarer one)", "(no valid answer)")
    assert table.has_rarer
    assert table.counts[23] == (*[0] * 23, 1, 1, 1)  # b is right, a is taken for b, c has no valid answer
    assert table.counts[0] == (2, *[0] * 23, 1, 0)
    diagonal = sum(row[place] for place, row in enumerate(table.counts))
    assert diagonal == sum(one == other for one, other in zip(gold, answers, strict=True))
    assert sum(map(sum, table.counts)) == len(gold)


def test_the_log_gives_costs_curves_and_thins_long_ones(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    log = read_log(RunDirectory(run))
    first, second = log.costs
    assert (first.stage, first.steps, first.seconds, first.queries, first.tokens, first.forwards) == (
        "warm start",
        6,
        12.0,
        24,
        60,
        2.0,
    )
    assert (second.seconds, second.queries) == (0.0, 0)  # the counts of this log do not run on
    loss = log.charts[0]
    assert [series.name for series in loss.series] == ["warm start", "training"]
    assert loss.series[1].steps == (7, 8, 9, 10, 11, 12)  # steps run on through the stages
    write_log(run, steps=2_000)
    long = read_log(RunDirectory(run)).charts[0].series[0]
    assert len(long.steps) <= 301
    assert (long.steps[0], long.steps[-1]) == (1, 2_000)


def test_a_control_that_answered_other_examples_is_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions")
    with pytest.raises(UserError, match="is another in"):
        page_of(run, write_run(tmp_path / "other", "questions", text="other"))
    with pytest.raises(UserError, match="is scored by exact_match"):
        page_of(run, write_run(tmp_path / "dialogue", "dialogue"))
