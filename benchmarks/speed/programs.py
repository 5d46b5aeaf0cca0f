"""Seconds of whole programs: help, a mistyped setting, the tour; the demo, which takes minutes, by name alone."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from benchmarks.speed.measuring import Aim, Measured, Row

__all__ = ["ROWS"]


def measure_program(command: list[str], longest: int = 3_600) -> Callable[[int], Measured]:
    """Return the measurement of a program in a process of its own, in an empty folder."""

    def measure(repeats: int) -> Measured:
        seconds: list[float] = []
        for _ in range(repeats):
            with tempfile.TemporaryDirectory() as folder:
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", *command], cwd=folder, capture_output=True, check=False, timeout=longest
                )
                seconds.append(time.perf_counter() - began)
        return seconds, {}, ""

    return measure


_TYPO = ["retrograd", "train", "semeval-joint", "--set", "training.epoch=3"]

ROWS = (
    Row("help", "retrograd --help", "", measure_program(["retrograd", "--help"]), Aim(0.5, False), "s"),
    Row("typo", "a mistyped setting", "", measure_program(_TYPO), Aim(0.5, False), "s"),
    Row("tour", "retrograd tour", "", measure_program(["retrograd", "tour"]), Aim(60, False), "s"),
)
BY_NAME = (Row("demo", "retrograd demo", "", measure_program(["retrograd", "demo"]), Aim(300, False), "s"),)
