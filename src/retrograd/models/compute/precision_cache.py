"""Keep the seconds of fp32 and bf16 on this machine in the user's cache folder.

Each file belongs to one processor with its instructions, one version of torch, one number of threads, one kind of work
and one width.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import torch

from retrograd.types import UserError
from retrograd.util.files import cache_folder
from retrograd.util.fingerprints import fingerprint
from retrograd.util.guards import JsonObject
from retrograd.util.progress import say
from retrograd.util.records import read_value
from retrograd.util.text_files import read_json, write_json

__all__ = [
    "MeasureSeconds",
    "PrecisionSeconds",
    "Work",
    "processor_instructions",
    "processor_name",
    "seconds_on_this_machine",
]

Work = Literal["training", "encoding"]
"""``training`` is forward and backward of a joint step, ``encoding`` a forward pass without gradient."""

WIDEST = 1_024
"""Wider models are timed at this width, so that timing takes seconds; their products have the same proportions."""


@dataclass(frozen=True)
class PrecisionSeconds:
    """Seconds that the same work takes in each precision."""

    fp32: float
    bf16: float

    def __post_init__(self) -> None:
        if not (self.fp32 > 0 and self.bf16 > 0):
            raise UserError(f"fp32 took {self.fp32} and bf16 {self.bf16} seconds; expected positive numbers")

    def __str__(self) -> str:
        """Return both in words."""
        return f"{self.fp32:.3g} s in fp32, {self.bf16:.3g} s in bf16"


MeasureSeconds = Callable[[Work, int], PrecisionSeconds]
"""Times one kind of work for a model of the given width, in both precisions."""


def seconds_on_this_machine(work: Work, width: int, measure: MeasureSeconds) -> PrecisionSeconds:
    """Return the seconds that the cache has of this machine; where it has none, measure and keep them.

    A file that cannot be read is measured again, and one that cannot be written is skipped, each with a message.
    """
    width = min(width, WIDEST)
    machine = _machine(work, width)
    path = cache_folder() / "precision" / f"{work}-{width}-{fingerprint(map(str, machine.values()))[:16]}.json"
    seconds = _read_seconds(path, machine)
    if seconds is None:
        seconds = measure(work, width)
        try:
            write_json(path, machine | {"seconds": asdict(seconds)})
        except OSError as error:
            say(f"the seconds of fp32 and bf16 could not be kept ({error}), and are measured again next time")
    return seconds


def processor_name() -> str:
    """Return the name that the processor gives itself."""
    return str(torch.cpu.get_capabilities().get("cpu_name", platform.processor()))


def processor_instructions() -> str:
    """Return the names of the sets of instructions that the processor has.

    In virtual machines processors of one name differ in them.
    """
    return " ".join(sorted(name for name, present in torch.cpu.get_capabilities().items() if present is True))


def _machine(work: Work, width: int) -> JsonObject:
    """Return all that decides how long the work takes."""
    return {
        "processor": processor_name(),
        "instructions": processor_instructions(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "work": work,
        "width": width,
    }


def _read_seconds(path: Path, machine: JsonObject) -> PrecisionSeconds | None:
    """Return the seconds of a file, or None where there is no such file or it is damaged."""
    try:
        if not path.exists():
            return None
        record = read_json(path)
        if not isinstance(record, dict) or {name: record.get(name) for name in machine} != machine:
            raise UserError(f"{path} is not of this machine")
        seconds = read_value(PrecisionSeconds, record.get("seconds"), f"{path}: seconds")
    except (UserError, OSError) as error:
        say(f"{error}; fp32 and bf16 are timed again")
        return None
    return seconds if isinstance(seconds, PrecisionSeconds) else None
