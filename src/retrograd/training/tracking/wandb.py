"""Lines for Weights & Biases: offline, into a folder that `wandb sync` can send later, unless an address is named.

A run that goes on keeps its id. Offline it writes another ``offline-run-…-ID`` beside the first; the lines of steps
made again are in both, as none can be taken back. Only this file imports wandb.
"""

from __future__ import annotations

from collections.abc import Mapping

from retrograd.training.tracking.environment import environment
from retrograd.training.tracking.tracker import LogLine, TrackedRun, TrackerKind

__all__ = ["WANDB"]


class _WeightsAndBiases:
    """A run of Weights & Biases; values are called ``STAGE/NAME``, each stage counts its own ``STAGE/step``."""

    def __init__(self, run: TrackedRun) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        # Its service takes these from the environment when it starts; it would write its own log to the user's cache.
        with environment({"WANDB_ERROR_REPORTING": "false", "WANDB_CACHE_DIR": str(run.folder / "cache")}):
            import wandb  # pyright: ignore[reportMissingImports]

            settings = wandb.Settings(
                console="off",
                disable_git=True,
                disable_code=True,
                silent=True,
                x_disable_machine_info=True,
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                x_transaction_log_flush_interval=1.0,  # seconds of lines that a killed process may lose
            )
            if run.address:
                settings.base_url = run.address
            self._run = wandb.init(
                project=run.project,
                name=run.name,
                id=run.id,
                dir=str(run.folder),
                config=dict(run.settings),
                mode="online" if run.address else "offline",
                resume="allow" if run.address else None,
                reinit="create_new",
                settings=settings,
            )
        self._stages: set[str] = set()

    def log(self, line: LogLine) -> None:
        """Log the values of a line as one point."""
        step = f"{line.stage}/step"
        if line.stage not in self._stages:
            self._run.define_metric(step)
            self._run.define_metric(f"{line.stage}/*", step_metric=step)
            self._stages.add(line.stage)
        self._run.log({step: line.step} | {f"{line.stage}/{name}": value for name, value in line.values.items()})

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Put the scores into the run's summary and end; a run that was stopped ends as one that failed."""
        for name, value in (scores or {}).items():
            self._run.summary[f"scores/{name}"] = value
        self._run.finish(exit_code=1 if scores is None else 0)


WANDB = TrackerKind("wandb", "wandb", _WeightsAndBiases, takes_address=True)
