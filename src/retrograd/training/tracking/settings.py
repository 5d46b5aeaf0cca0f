"""Settings of trackers: which take the lines and scores of a run, and where these go."""

from __future__ import annotations

from dataclasses import dataclass

from retrograd.training.tracking.kinds import TRACKERS, find_tracker
from retrograd.types import UserError

__all__ = ["TrackSettings"]


@dataclass(frozen=True)
class TrackSettings:
    """Settings of the trackers that take each line of metrics and the scores, too. Nothing that is computed changes.

    ``kinds`` are any of "tensorboard", "trackio", "wandb" and "mlflow", each `pip install 'retrograd[NAME]'`. Runs are
    grouped by ``project``, where a tracker groups them.

    Trackers keep their files in ``folder``, each in a folder of its own there; "" is ``tracking`` in the run's folder.
    With an ``address``, that of a server of the one tracker named, lines are sent there. Without one nothing is sent
    anywhere.

    Example::

        settings = rg.TrackSettings(kinds=("tensorboard",))
        print(settings.project)
    """

    kinds: tuple[str, ...] = ()
    project: str = "retrograd"
    folder: str = ""
    address: str = ""

    def __post_init__(self) -> None:
        kinds = [find_tracker(name) for name in self.kinds]
        twice = next((name for name in self.kinds if self.kinds.count(name) > 1), None)
        if twice is not None:
            raise UserError(f"track.kinds names {twice!r} twice; name each tracker once")
        if not self.project.strip():
            raise UserError('track.project is empty; give the runs a name to be grouped by, such as "retrograd"')
        if self.address and not (len(kinds) == 1 and kinds[0].takes_address):
            able = ", ".join(f'"{kind.name}"' for kind in TRACKERS if kind.takes_address)
            raise UserError(
                f"track.address is {self.address!r}, and track.kinds is {list(self.kinds)}; an address belongs to one "
                f"tracker, any of {able}: name that one alone, or leave the address out"
            )
