"""Read back what trackers have written, each by its own package, in one form: values by name and step."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["READERS", "Stored"]


@dataclass
class Stored:
    """What a tracker has of one run: for each ``STAGE/NAME`` the value of each step, the last one where it has two;
    settings as text, and scores. ``sessions`` counts the processes that wrote it, where the tracker keeps them apart.
    """

    values: dict[str, dict[int, float]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    scores: dict[str, float] = field(default_factory=dict)
    sessions: int = 1

    def add(self, name: str, step: int, value: float) -> None:
        if name.startswith("scores/"):
            self.scores[name.removeprefix("scores/")] = value
        else:
            self.values.setdefault(name, {})[step] = value


def read_tensorboard(folder: Path, project: str) -> Stored:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    stored = Stored()
    (run,) = folder.iterdir()
    for place in (run, *(path for path in run.iterdir() if path.is_dir())):
        events = EventAccumulator(str(place), size_guidance={"scalars": 0}).Reload()
        for tag in events.Tags()["scalars"]:
            name = tag if place == run else f"{place.name}/{tag}"
            for event in events.Scalars(tag):
                stored.add(name, event.step, event.value)
        if place == run:
            content = events.PluginTagToContent("hparams")["_hparams_/session_start_info"]
            settings = HParamsPluginData.FromString(content).session_start_info.hparams
            stored.settings = {
                name: setting.string_value or f"{setting.number_value:g}" for name, setting in settings.items()
            }
    return stored


def read_trackio(folder: Path, project: str) -> Stored:
    from trackio.sqlite_storage import SQLiteStorage

    assert (folder / f"{project}.db").exists()
    (run,) = SQLiteStorage.get_runs(project)
    stored = Stored()
    for line in SQLiteStorage.get_logs(project, run):
        for name, value in line.items():
            if "/" in name:
                stored.add(name, line["step"], value)
    stored.settings = {name: str(value) for name, value in (SQLiteStorage.get_run_config(project, run) or {}).items()}
    return stored


def read_mlflow(folder: Path, project: str) -> Stored:
    from mlflow import MlflowClient

    from retrograd.training.tracking.mlflow import reach_store

    with reach_store():
        client = MlflowClient(folder.as_uri())
        experiment = client.get_experiment_by_name(project)
        (run,) = client.search_runs([experiment.experiment_id])
        stored = Stored(settings=dict(run.data.params))
        for name in run.data.metrics:
            for point in client.get_metric_history(run.info.run_id, name):
                stored.add(name, point.step, point.value)
    return stored


def read_wandb(folder: Path, project: str) -> Stored:
    """A file of records in LevelDB's framing; a run that went on has one for each of its processes."""
    import wandb

    wandb.teardown()  # as at the end of a process: its service writes the last records after a run has finished
    files = sorted(folder.rglob("*.wandb"))
    stored, ids = Stored(sessions=len(files)), set[str]()
    for file in files:
        for record in _wandb_records(file.read_bytes()):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                ids.add(record.run.run_id)
                stored.settings |= {item.key: str(json.loads(item.value_json)) for item in record.run.config.update}
            elif kind == "history":
                items = {_key(item): json.loads(item.value_json) for item in record.history.item}
                for name, value in items.items():
                    stage, _, own = name.partition("/")
                    if own and own != "step":
                        stored.add(name, items[f"{stage}/step"], value)
            elif kind == "summary":
                for item in record.summary.update:
                    if _key(item).startswith("scores/"):
                        stored.add(_key(item), 0, json.loads(item.value_json))
    assert len(ids) == 1, "one run"
    return stored


def _key(item: object) -> str:
    return item.key or ".".join(item.nested_key)  # type: ignore[attr-defined]


def _wandb_records(data: bytes) -> Iterator[object]:
    from wandb.proto.wandb_internal_pb2 import Record

    block, header = 32_768, 7
    position, pending = header, b""  # after the file's own header
    while position + header <= len(data):
        left = block - position % block
        if left < header:
            position += left
            continue
        _, size, kind = struct.unpack("<IHB", data[position : position + header])
        if kind == 0:
            return
        pending += data[position + header : position + header + size]
        position += header + size
        if kind in (1, 4):  # a whole record, or the last part of one
            yield Record.FromString(pending)
            pending = b""


READERS: dict[str, Callable[[Path, str], Stored]] = {
    "tensorboard": read_tensorboard,
    "trackio": read_trackio,
    "wandb": read_wandb,
    "mlflow": read_mlflow,
}
"""By the name of the tracker: the folder and the project of one run to what is stored of it."""
