"""All trackers that experiments may name. A new one is a file beside this and a line in `TRACKERS`."""

from __future__ import annotations

from retrograd.training.tracking.mlflow import MLFLOW
from retrograd.training.tracking.tensorboard import TENSORBOARD
from retrograd.training.tracking.tracker import TrackerKind
from retrograd.training.tracking.trackio import TRACKIO
from retrograd.training.tracking.wandb import WANDB
from retrograd.types import UserError
from retrograd.util.guards import suggest_name
from retrograd.util.optional import require_package

__all__ = ["TRACKERS", "find_tracker", "require_tracker"]

TRACKERS: tuple[TrackerKind, ...] = (TENSORBOARD, TRACKIO, WANDB, MLFLOW)
"""In the order in which they are described."""


def find_tracker(name: str) -> TrackerKind:
    """Return the tracker of a name. Raises `UserError`, with the nearest name, for any other."""
    kind = next((kind for kind in TRACKERS if kind.name == name), None)
    if kind is None:
        names = [kind.name for kind in TRACKERS]
        raise UserError(f"track.kinds names {name!r}, which is no tracker; {suggest_name(name, names)}")
    return kind


def require_tracker(kind: TrackerKind) -> None:
    """Raise `UserError` where the package of a tracker is not installed."""
    require_package(f'"{kind.name}" in track.kinds', kind.package, kind.name, instead="leave it out")
