"""What a reader does with damaged inputs: a result or a `UserError`, within seconds, and no file besides."""

from __future__ import annotations

import resource
import signal
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, settings
from tests.fuzz.damage import damaged

from retrograd.types import UserError

__all__ = ["Reader", "fuzz", "outcome"]

SECONDS = 60.0
"""Wall clock for one input, after which it is taken for one that never ends; most take a millisecond."""

MORE_BYTES = 4 << 30
"""How much more memory the process may ask for than it has."""


@dataclass(frozen=True)
class Reader:
    """A reader of one file. ``read`` gets its path; whatever it yields is read to the end.

    ``form`` is how the file is damaged: "json" and "lines" value by value, all of them byte by byte. ``sound`` is the
    file as it should be; None where `fuzz` finds it in place, in a folder that was laid out before. ``cost`` is how
    many inputs of a plain reader one of this takes the time of.
    """

    group: str
    name: str
    file: str
    form: str
    sound: bytes | None
    read: Callable[[Path], object]
    cost: int = 1

    def __str__(self) -> str:
        return f"{self.group}: {self.name}"


class SlowError(BaseException):
    """Not an `Exception`, so that no reader catches it."""


def fuzz(reader: Reader, folder: Path, inputs: int) -> Counter[str]:
    """Give a reader so many inputs under ``folder``; what it did with them. Raises what it should not have raised."""
    path = folder / reader.file
    sound = path.read_bytes() if reader.sound is None else reader.sound
    before, seen = {one.name for one in path.parent.iterdir()} | {path.name}, Counter[str]()

    @settings(
        max_examples=max(inputs, 1),
        derandomize=True,
        database=None,
        phases=(Phase.explicit, Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(damaged(sound, reader.form))
    def read(content: bytes) -> None:
        path.write_bytes(content)
        seen[outcome(reader, path)] += 1
        left = {one.name for one in path.parent.iterdir()} - before
        assert not left, f"left behind: {left}"

    try:
        read()
    finally:
        path.write_bytes(sound)
    return seen


def outcome(reader: Reader, path: Path) -> str:
    """ "result" or "UserError"; whatever else happens is raised."""
    with _limited():
        try:
            _require_text(reader.read(path))
        except UserError as error:
            str(error).encode()  # it is going to be printed
            return "UserError"
    return "result"


@contextmanager
def _limited() -> Iterator[None]:
    def stop(signum: int, frame: object) -> None:
        raise SlowError(f"more than {SECONDS} seconds")

    before, memory = signal.signal(signal.SIGALRM, stop), resource.getrlimit(resource.RLIMIT_AS)
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + MORE_BYTES, memory[1]))
    signal.setitimer(signal.ITIMER_REAL, SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, memory)


def _require_text(value: object) -> None:
    """All strings within can be written to a file."""
    if isinstance(value, str):
        value.encode()
    elif isinstance(value, Mapping):
        _require_text(list(value.items()))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            _require_text(getattr(value, field.name, None))
    elif isinstance(value, (list, tuple)) or (isinstance(value, Iterable) and hasattr(value, "__next__")):
        for one in value:
            _require_text(one)
