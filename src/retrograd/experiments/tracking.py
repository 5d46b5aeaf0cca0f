"""Open the trackers that an experiment asks for, and give them its settings."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.public_settings import settings_for_others
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.kinds import find_tracker, require_tracker
from retrograd.training.tracking.run_log import RunLog, warn_of_failure
from retrograd.training.tracking.settings import TrackSettings
from retrograd.training.tracking.tracker import Hyperparameter, TrackedRun, Tracker
from retrograd.util.text_files import read_json, read_jsonl, write_json

__all__ = ["last_steps", "open_log", "require_trackers"]


def require_trackers(settings: TrackSettings) -> None:
    """Raise `UserError` where the package of a tracker is not installed."""
    for name in settings.kinds:
        require_tracker(find_tracker(name))


def open_log(
    experiment: Experiment, run: RunDirectory, is_resumed: bool, others: Mapping[str, Tracker] | None = None
) -> RunLog:
    """Return the log of a run with the trackers of its experiment, and ``others`` by name.

    One that cannot be opened is left out, with a warning. A rank other than the first has no trackers.
    """
    if not run.is_writer:
        return RunLog(run)
    trackers: dict[str, Tracker] = dict(others or {})
    if not experiment.track.kinds:
        return RunLog(run, trackers)
    id_, kept = _tracked_id(run), last_steps(run) if is_resumed else None
    for name in experiment.track.kinds:
        try:
            trackers[name] = find_tracker(name).open(_describe_run(experiment, run, name, id_, kept))
        except Exception as error:  # whatever a package for tracking raises
            warn_of_failure(name, error)
    return RunLog(run, trackers)


def last_steps(run: RunDirectory) -> dict[str, int]:
    """Return the last step of each stage that has a line in ``metrics.jsonl``."""
    lines = read_jsonl(run.path / "metrics.jsonl") if run.metrics_bytes() else iter(())
    return {str(line["stage"]): step for _, line in lines if isinstance(step := line.get("step"), int)}


def _tracked_id(run: RunDirectory) -> str:
    """Return the name by which trackers know a run again when it goes on."""
    file = run.path / "tracked.json"
    record = read_json(file) if file.exists() else None
    if isinstance(record, dict) and isinstance(record.get("id"), str):
        return str(record["id"])
    id_ = secrets.token_hex(4)
    with run.writing("the name of the tracked run"):
        write_json(file, {"id": id_})
    return id_


def _describe_run(
    experiment: Experiment, run: RunDirectory, tracker: str, id_: str, kept: Mapping[str, int] | None
) -> TrackedRun:
    track, path = experiment.track, run.path.resolve()
    folder = run.path / "tracking" if not track.folder else run.path.joinpath(track.folder)
    return TrackedRun(
        folder=(folder / tracker).resolve(),
        address=track.address,
        project=track.project,
        name=path.name,
        id=id_,
        settings=_hyperparameters(experiment),
        kept=kept,
    )


def _hyperparameters(experiment: Experiment) -> dict[str, Hyperparameter]:
    """Return the settings that others may read; a list is written as JSON."""
    return {
        name: value if isinstance(value, (str, int, float, bool)) else json.dumps(value)
        for name, value in settings_for_others(experiment).items()
    }
