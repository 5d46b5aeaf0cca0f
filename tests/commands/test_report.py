"""`report` and `train --report` end to end: every kind of data, a study, stopping and going on."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path

import pytest
from tests.experiments.test_resume import crashed, differing, tiny
from tests.page_runs import write_run
from tests.studies.test_study import command, questions, relations

from retrograd.experiments.run import run_experiment
from retrograd.report import live
from retrograd.report.live import LivePage
from retrograd.report.run_page import save_run_page
from retrograd.studies.report_page import build_progress_page
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError


@pytest.fixture
def models(tiny_encoder: Path, tiny_seq2seq: Path, tiny_causal: Path) -> dict[str, Path]:
    return {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq, "causal": tiny_causal}


def page_of(folder: Path) -> str:
    return (folder / "report" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["relations", "questions", "dialogue"])
def test_report_writes_a_page_beside_text_and_record(kind: str, tmp_path: Path) -> None:
    run, other = write_run(tmp_path / "run", kind), write_run(tmp_path / "other", kind, right=1)
    printed = command("report", run, other, "--no-vote", "--resamples", 100)
    assert f"The page is {run / 'report' / 'report.html'}; its figures as text are in" in " ".join(printed.split())
    assert {"report.html", "report.md", "report.json"} <= {path.name for path in (run / "report").iterdir()}
    assert "over the control other" in page_of(run)
    record = json.loads(command("report", run, "--json", "--no-vote", "--out", tmp_path / "out", "--resamples", 100))
    assert (record["state"], record["page"]) == ("finished", str(tmp_path / "out" / "report.html"))
    assert record["systems"][0]["name"] == "run"


def test_report_of_a_run_that_trains_is_what_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "questions", finished=False)
    printed = command("report", run)
    assert "Training has not ended; last logged: step 6 of training." in printed
    assert printed.strip().endswith(f"The page is {run / 'report' / 'report.html'}.")
    assert 'http-equiv="refresh"' in page_of(run)
    other = write_run(tmp_path / "other", "questions")
    assert "Left out, as this run has no scores yet: other." in command("report", run, other)
    assert [path.name for path in (run / "report").iterdir()] == ["report.html"]
    with pytest.raises(UserError, match="is not a run"):
        command("report", tmp_path, status=1)


@pytest.mark.slow
def test_training_is_the_same_with_a_page_which_is_written_as_it_goes(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages: list[str] = []

    def write(run: Path) -> None:
        save_run_page(build_progress_page(run), run / "report")
        pages.append(page_of(run))

    monkeypatch.setattr(live, "watch_run", lambda run: {"page": LivePage(lambda: write(run), clock=lambda: 0.0)})
    monkeypatch.setattr(live, "_LEAST_SECONDS", 0.0)
    experiment = tiny("full", tmp_path / "data", models)
    file = tmp_path / "tiny.toml"
    file.write_text(experiment.to_toml())
    run = tmp_path / "with"
    printed = command("train", file, "--out", run, "--report")
    assert f"Its page is {run / 'report' / 'report.html'}." in printed
    assert len(pages) > 4
    assert all('http-equiv="refresh"' in page and "Before training" in page for page in pages)
    assert "1 of warm start" in pages[0]
    assert "of training" in pages[-1]
    assert 'http-equiv="refresh"' not in page_of(run)
    assert "After training" in page_of(run)
    plain = run_experiment(experiment, tmp_path / "without").path
    assert differing(run, plain) == ["report/report.html", "report/report.json"]


@pytest.mark.slow
def test_a_run_that_goes_on_with_a_page_keeps_its_neighbours(models: dict[str, Path], tmp_path: Path) -> None:
    run = crashed(tiny("chains", tmp_path / "data", models), tmp_path / "run", 6)
    before = RunDirectory(run).neighbours("before").read_bytes()
    assert "has not ended" in command("report", run)
    printed = command("train", "--resume", run, "--report")
    assert "Its page is" in printed
    assert RunDirectory(run).neighbours("before").read_bytes() == before
    assert "sampled test examples before training, for" in page_of(run)


def test_a_page_that_cannot_be_written_does_not_end_the_training(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise OSError("no room")

    run = run_experiment(
        tiny("resting", tmp_path / "data", models), tmp_path / "run", trackers={"page": LivePage(fail)}
    )
    assert run.has_ended
    assert capsys.readouterr().err.count("the tracker page has failed (OSError: no room)") == 1


@pytest.mark.slow
@pytest.mark.parametrize("make", [relations, questions])
def test_a_study_has_a_page_of_all_systems(
    make: object, tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path
) -> None:
    assert callable(make)
    file, study = make(tmp_path, tiny_encoder, tiny_seq2seq), tmp_path / "study"
    printed = command("train", file, "--controls", "--out", study, "--report")
    assert f"The page is {study / 'report' / 'report.html'}." in printed
    html = page_of(study)
    for system in ("closed book", "random neighbours", "frozen retriever", "oracle"):
        assert f'<th scope="row">{system}{" (is told)" if system == "oracle" else ""}</th>' in html
    sentence = json.loads((study / "evidence.json").read_text())["sentence"]
    assert f"{sentence[0].upper()}{sentence[1:]}." in html.replace("&#43;", "+")
    # What the text says below its table the page says, too.
    notes = (study / "evidence.txt").read_text().partition("\n± ")[2].partition("\n\n")[0]
    assert " ".join(notes.split()) in " ".join(unescape(html).split())
    assert 'http-equiv="refresh"' not in html
    if make is relations:  # the questions are too few for a second step
        charts = json.loads(html.split('id="curve-data">')[1].split("</script>")[0])
        names = [series["name"] for series in charts[0]["series"]]
        assert names == ["experiment", "closed book", "random neighbours", "frozen retriever", "oracle"]
    assert "95 % interval" in page_of(study / "experiment-seed0")
    with pytest.raises(UserError, match="is a study, which has its controls"):
        command("report", study, study / "experiment-seed0", status=1)
    # A study that has not ended has a page, too, and says so.
    (study / "oracle-seed0" / "scores.json").unlink()
    assert "The study has not ended" in command("report", study)
    assert "4 of 5" in page_of(study)
    assert 'http-equiv="refresh"' in page_of(study)
    record = json.loads(command("report", study, "--json"))
    assert record == {"folder": str(study / "report"), "page": str(study / "report" / "report.html")}
