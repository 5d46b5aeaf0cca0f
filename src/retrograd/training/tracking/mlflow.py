"""Lines for MLflow: its file store in a folder, unless the address of a tracking server is named.

A run that goes on is found by a tag. The lines of steps made again are there twice, as none can be taken back. Only
this file imports mlflow.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from retrograd.training.tracking.environment import environment
from retrograd.training.tracking.tracker import LogLine, TrackedRun, TrackerKind

if TYPE_CHECKING:
    from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

__all__ = ["MLFLOW", "reach_store"]

_TAG = "retrograd.id"
_LONGEST_VALUE = 6_000
_MOST_PARAMETERS = 100
_NOT_IN_NAMES = re.compile(r"[^\w\-. /]")


class _MLflow:
    """A run of MLflow; values are called ``STAGE/NAME``, ``@`` in a name is ``_at_``."""

    def __init__(self, run: TrackedRun) -> None:
        with reach_store():
            from mlflow import MlflowClient  # pyright: ignore[reportMissingImports]

            run.folder.mkdir(parents=True, exist_ok=True)
            self._client = MlflowClient(run.address or run.folder.as_uri())
            experiment = self._client.get_experiment_by_name(run.project)
            group = self._client.create_experiment(run.project) if experiment is None else experiment.experiment_id
            self._run_id = _find_run(self._client, group, run) or self._create_run(group, run)
            self._client.update_run(self._run_id, status="RUNNING")

    def _create_run(self, group: str, run: TrackedRun) -> str:
        from mlflow.entities import Param  # pyright: ignore[reportMissingImports]

        run_id = self._client.create_run(group, tags={_TAG: run.id}, run_name=run.name).info.run_id
        for part in _parts([Param(name, str(value)[:_LONGEST_VALUE]) for name, value in run.settings.items()]):
            self._client.log_batch(run_id, params=part)
        return run_id

    def log(self, line: LogLine) -> None:
        """Log the values of a line at its step."""
        self._log({f"{line.stage}/{name}": value for name, value in line.values.items()}, line.step)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Log the scores at step 0 and end; a run that was stopped is ``KILLED`` until it goes on."""
        self._log({f"scores/{name}": value for name, value in (scores or {}).items()}, 0)
        with reach_store():
            self._client.set_terminated(self._run_id, "KILLED" if scores is None else "FINISHED")

    def _log(self, values: Mapping[str, float], step: int) -> None:
        with reach_store():
            from mlflow.entities import Metric  # pyright: ignore[reportMissingImports]

            now = int(time.time() * 1_000)
            metrics = [Metric(_metric_name(name), value, now, step) for name, value in values.items()]
            self._client.log_batch(self._run_id, metrics=metrics)


def reach_store() -> AbstractContextManager[None]:
    """Allow the file store, have nothing reported to MLflow's makers, and do not wait minutes for a server."""
    return environment(
        {
            "MLFLOW_ALLOW_FILE_STORE": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
        }
    )


def _find_run(client: MlflowClient, group: str, run: TrackedRun) -> str | None:
    """Return MLflow's own id of a run that goes on; None for one that it does not know."""
    if run.kept is None:
        return None
    runs = client.search_runs([group], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
    return runs[0].info.run_id if runs else None


def _parts(items: list[object]) -> Iterator[list[object]]:
    """Split a list into parts that are small enough for one request."""
    for start in range(0, len(items), _MOST_PARAMETERS):
        yield items[start : start + _MOST_PARAMETERS]


def _metric_name(name: str) -> str:
    return _NOT_IN_NAMES.sub("_", name.replace("@", "_at_"))


MLFLOW = TrackerKind("mlflow", "mlflow", _MLflow, takes_address=True)
