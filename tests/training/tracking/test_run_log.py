"""Lines go to metrics.jsonl, to people and to every tracker; one that fails is left out with one warning."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest

from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking import run_log
from retrograd.training.tracking.kinds import TRACKERS, find_tracker, require_tracker
from retrograd.training.tracking.run_log import RunLog
from retrograd.training.tracking.settings import TrackSettings
from retrograd.training.tracking.tracker import LogLine, TrackedRun, TrackerKind
from retrograd.types import UserError


class KeptLines:
    """A tracker that keeps what it gets, and fails from the ``failing``-th line on."""

    def __init__(self, failing: int = 1_000) -> None:
        self.failing = failing
        self.lines: list[LogLine] = []
        self.closed: list[Mapping[str, float] | None] = []

    def log(self, line: LogLine) -> None:
        if len(self.lines) + 1 >= self.failing:
            raise OSError("no space left on device\nsecond line")
        self.lines.append(line)

    def close(self, scores: Mapping[str, float] | None) -> None:
        self.closed.append(scores)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    lines: list[str] = []
    monkeypatch.setattr(run_log, "say", lines.append)
    return lines


def test_each_line_goes_everywhere_and_people_see_those_with_a_loss(tmp_path: Path, said: list[str]) -> None:
    tracker = KeptLines()
    log = RunLog(RunDirectory(tmp_path), {"kept": tracker})
    log.log(LogLine("training", 1, 4, {"loss": 1.5, "gradient_norm": math.inf}))
    log.log(LogLine("training", 1, 4, {"exact_match": 50.0}))
    log.close({"exact_match": 60.0})
    log.close(None)  # ended already
    written = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["loss"], line["gradient_norm"]) for line in written[:1]] == [(1.5, None)]
    assert (written[1]["step"], written[1]["exact_match"]) == (1, 50.0)
    assert said == ["training 1/4 · loss 1.500 · gradient inf"]
    assert [dict(line.values) for line in tracker.lines] == [{"loss": 1.5}, {"exact_match": 50.0}]
    assert tracker.closed == [{"exact_match": 60.0}]


def test_a_tracker_that_fails_is_left_out_with_one_warning(tmp_path: Path, said: list[str]) -> None:
    failing, other = KeptLines(failing=2), KeptLines()
    log = RunLog(RunDirectory(tmp_path), {"first": failing, "second": other})
    for step in (1, 2, 3):
        log.log(LogLine("training", step, 3, {"index_age": 1.0}))
    log.close(None)
    assert len(said) == 1
    assert "the tracker first has failed (OSError: no space left on device); training goes on without it" in said[0]
    assert [line.step for line in failing.lines] == [1]
    assert failing.closed == []
    assert [line.step for line in other.lines] == [1, 2, 3]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_only_the_first_rank_writes_lines(tmp_path: Path) -> None:
    RunLog(RunDirectory(tmp_path, is_writer=False)).log(LogLine("training", 1, 1, {"index_age": 1.0}))
    assert not (tmp_path / "metrics.jsonl").exists()


# ---- settings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kinds": ("tensorbord",)}, r"'tensorbord', which is no tracker; did you mean 'tensorboard'"),
        ({"kinds": ("wandb", "wandb")}, r"'wandb' twice"),
        ({"kinds": ("wandb",), "project": " "}, "track.project is empty"),
        ({"kinds": ("tensorboard",), "address": "http://here:1"}, "an address belongs to one tracker"),
        ({"kinds": ("wandb", "mlflow"), "address": "http://here:1"}, "name that one alone"),
        ({"address": "http://here:1"}, "an address belongs to one tracker"),
    ],
)
def test_settings_that_do_not_fit_say_so(settings: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrackSettings(**settings)  # pyright: ignore[reportArgumentType]


def test_names_are_those_of_extras_and_kinds_are_found_by_them() -> None:
    for kind in TRACKERS:
        assert find_tracker(kind.name) is kind
    TrackSettings(kinds=("mlflow",), address="http://here:1")


def test_a_package_that_is_missing_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(run: TrackedRun) -> KeptLines:
        raise AssertionError

    (tmp_path / "no_such_package").mkdir()  # a folder of its files is no package
    monkeypatch.syspath_prepend(str(tmp_path))
    kind = TrackerKind("some", "no_such_package", never, takes_address=False)
    advice = r"needs no_such_package, which is not installed: pip install 'retrograd\[some\]', or leave it out"
    with pytest.raises(UserError, match=rf'"some" in track\.kinds {advice}'):
        require_tracker(kind)
