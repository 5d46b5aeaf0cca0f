"""Lines for trackio: a file of SQLite, unless an address is named: a Space (``user/name``) or the URL of a server.

A Space that does not exist is made, and is private.

A run that goes on is found by its name. The lines of steps made again are there twice, as none can be taken back. Only
this file imports trackio.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout

from retrograd.training.tracking.environment import environment
from retrograd.training.tracking.tracker import LogLine, TrackedRun, TrackerKind
from retrograd.types import UserError

__all__ = ["TRACKIO"]

_ADDRESSES = {"TRACKIO_SPACE_ID": None, "TRACKIO_SERVER_URL": None}
"""Variables that would have lines sent somewhere though the experiment names no address."""


class _Trackio:
    """A run ``NAME-ID`` of trackio; values are called ``STAGE/NAME``."""

    def __init__(self, run: TrackedRun) -> None:
        run.folder.mkdir(parents=True, exist_ok=True)
        with environment({"TRACKIO_DIR": str(run.folder), **_ADDRESSES}), _quiet():
            import trackio  # pyright: ignore[reportMissingImports]
            from trackio.utils import TRACKIO_DIR  # pyright: ignore[reportMissingImports]

            if not run.address and TRACKIO_DIR.resolve() != run.folder:
                raise UserError(
                    f"trackio keeps all runs of one process in one folder, which is {TRACKIO_DIR} already; set "
                    f"track.folder to one folder for all runs"
                )
            is_url = run.address.startswith(("http://", "https://"))
            self._run = trackio.init(
                project=run.project,
                name=f"{run.name}-{run.id}",
                space_id=None if is_url or not run.address else run.address,
                private=True,  # a Space that is made for the run; without this it is public
                server_url=run.address if is_url else None,
                config=dict(run.settings),
                resume="never" if run.kept is None else "allow",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log(self, line: LogLine) -> None:
        """Log the values of a line at its step."""
        self._run.log({f"{line.stage}/{name}": value for name, value in line.values.items()}, step=line.step)

    def close(self, scores: Mapping[str, float] | None) -> None:
        """Log the scores at step 0 and end."""
        from trackio.context_vars import current_run  # pyright: ignore[reportMissingImports]

        if scores:
            self._run.log({f"scores/{name}": value for name, value in scores.items()}, step=0)
        with _quiet():
            self._run.finish()
            if current_run.get() is self._run:
                current_run.set(None)  # or it would be finished, and said to be, once more at the process's end


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what trackio prints off the screen."""
    with redirect_stdout(io.StringIO()):
        yield


TRACKIO = TrackerKind("trackio", "trackio", _Trackio, takes_address=True)
