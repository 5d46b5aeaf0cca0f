"""The contract of trackers, over all there are: what is logged is read back by each one's own package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.requirements import skip_without_tracker
from tests.training.tracking.stores import READERS, Stored

from retrograd.training.tracking.kinds import TRACKERS
from retrograd.training.tracking.tracker import LogLine, TrackedRun, Tracker, TrackerKind

pytestmark = pytest.mark.integration

SETTINGS = {"name": "tiny", "training.epochs": 2, "training.clip": 0.5, "generator.fusion": False}
PROJECTS = {"a new run": "new", "a run that went on": "resumed"}


@pytest.fixture(scope="module", params=TRACKERS, ids=lambda kind: kind.name)
def kind(request: pytest.FixtureRequest) -> TrackerKind:
    skip_without_tracker(request.param.package)
    return request.param


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder for all runs of this process: trackio has one at most."""
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture
def begin(kind: TrackerKind, root: Path) -> Callable[..., Tracker]:
    def begin(project: str, kept: dict[str, int] | None = None) -> Tracker:
        return kind.open(TrackedRun(folder_of(kind, root, project), "", project, "tiny", "abc123", SETTINGS, kept))

    return begin


def folder_of(kind: TrackerKind, root: Path, project: str) -> Path:
    return root / kind.name if kind.name == "trackio" else root / project / kind.name


def stored(kind: TrackerKind, root: Path, project: str) -> Stored:
    return READERS[kind.name](folder_of(kind, root, project), project)


def line(stage: str, step: int, **values: float) -> LogLine:
    return LogLine(stage, step, 10, values)


def test_every_tracker_has_a_reader_here() -> None:
    assert READERS.keys() == {kind.name for kind in TRACKERS}


def test_lines_settings_and_scores_are_read_back(kind: TrackerKind, root: Path, begin: Callable[..., Tracker]) -> None:
    tracker = begin("new")
    tracker.log(line("warm-start", 1, loss=3.5, queries_seen=8))
    tracker.log(line("warm-start", 2, loss=2.5))
    tracker.log(line("training", 1, loss=1.25))
    tracker.close({"exact_match": 50.0, "gold_recall@1": 25.0})
    found = stored(kind, root, "new")
    assert found.values == {
        "warm-start/loss": {1: 3.5, 2: 2.5},
        "warm-start/queries_seen": {1: 8},
        "training/loss": {1: 1.25},
    }
    at = "_at_" if kind.name == "mlflow" else "@"
    assert found.scores == {"exact_match": 50.0, f"gold_recall{at}1": 25.0}
    assert found.settings.keys() >= SETTINGS.keys()
    assert (found.settings["name"], found.settings["training.epochs"]) == ("tiny", "2")


def test_a_run_that_goes_on_is_the_same_run(kind: TrackerKind, root: Path, begin: Callable[..., Tracker]) -> None:
    tracker = begin("resumed")
    for step in (1, 2, 3):
        tracker.log(line("warm-start", step, loss=float(step)))
    for step in (1, 2, 3, 4):
        tracker.log(line("training", step, loss=float(step)))
    tracker.close(None)
    tracker = begin("resumed", {"warm-start": 3, "training": 2})
    tracker.log(line("training", 3, loss=30.0))
    tracker.close({"exact_match": 50.0})
    found = stored(kind, root, "resumed")  # which finds one run
    training = found.values["training/loss"]
    assert found.values["warm-start/loss"] == {1: 1.0, 2: 2.0, 3: 3.0}
    assert {step: training[step] for step in (1, 2, 3)} == {1: 1.0, 2: 2.0, 3: 30.0}
    # Only TensorBoard can be told that a step was taken back.
    assert (4 not in training) == (kind.name == "tensorboard")
    assert found.scores == {"exact_match": 50.0}
    assert found.sessions == (2 if kind.name == "wandb" else 1)
