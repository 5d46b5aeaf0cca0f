"""Handle Ctrl-C while a run trains: the first lets the step finish and be saved, the second stops at once."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

__all__ = ["Interrupted", "Interrupts"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """Training has stopped because it was asked to. The text says where; no ``except Exception`` catches it."""


class Interrupts:
    """A handler of SIGINT and SIGTERM, active once it is entered as a context in the main thread.

    ``is_requested`` says that one has come: inside `hold` it is for the caller to stop where it can, outside
    `Interrupted` is raised at once. ``is_repeated`` says that a second one has come, which is raised everywhere.
    """

    def __init__(self) -> None:
        self.is_requested = False
        self.is_repeated = False
        self._defers = False
        self._before: dict[signal.Signals, object] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]  (what signal() itself gave)
        self._before = {}

    @contextmanager
    def hold(self, agreed: Callable[[bool], bool] = bool) -> Iterator[None]:
        """Note the first signal only in ``is_requested`` until the block ends. At its end all who ``agreed`` stop."""
        self._defers = True
        try:
            yield
        finally:
            self._defers = False
        if agreed(self.is_requested):
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.is_repeated = self.is_requested
        self.is_requested = True
        if self.is_repeated or not self._defers:
            raise Interrupted
        from retrograd.training.distributed.ranks import is_first_process  # torch, which `Interrupted` does without

        # Not through sys.stderr: the signal may have come while something was being written to it.
        if is_first_process():
            os.write(2, b"\nretrograd: this step is finished and saved first; once more stops at once\n")
