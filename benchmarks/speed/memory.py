"""Peak memory, in units of what `retrograd plan` or the size of an index says."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.index import extra_memory
from benchmarks.speed.measuring import Aim, Measured, Row

__all__ = ["ROWS"]

_RECIPE = ["semeval-joint", "--set", "data.train_count=320", "--set", "data.test_count=64"]
_INDEX = argparse.Namespace(rows=1_000_000, width=384, queries=32, k=20)
_BYTES = _INDEX.rows * _INDEX.width * 4
_MEGABYTE = 2**20


def measure_training(repeats: int) -> Measured:
    """Return the largest resident set of a training in units of the planned sum."""
    program = [sys.executable, "-m", "retrograd"]
    planned = json.loads(subprocess.run([*program, "plan", *_RECIPE, "--json"], capture_output=True, check=True).stdout)
    total, peaks = float(planned["memory"]["total"]), []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as folder, open(os.devnull, "wb") as nothing:
            command = [*program, "train", *_RECIPE, "--out", str(Path(folder) / "run")]
            child = subprocess.Popen(command, stdout=nothing, stderr=nothing)
            _, status, usage = os.wait4(child.pid, 0)
            child.returncode = os.waitstatus_to_exitcode(status)
            if child.returncode:
                raise RuntimeError(f"training ended with status {child.returncode}")
            peaks.append(usage.ru_maxrss * 1024)
    note = f"planned {total / 1e9:.2f} GB, of it libraries {planned['memory']['libraries'] / 1e9:.2f} GB"
    return [peak / total for peak in peaks], {}, note


def measure_index(repeats: int) -> Measured:
    """Return the vectors and what a search with log Z and gradient adds to them, in units of the vectors."""
    context, extra = multiprocessing.get_context("spawn"), []
    for _ in range(repeats):
        with context.Pool(1) as pool:
            arguments = ("exact, top-K + log Z + gradient", _INDEX.rows, "fp32", _INDEX)
            extra.append(pool.apply(extra_memory, arguments) * _MEGABYTE)
    return [(_BYTES + own) / _BYTES for own in extra], {}, f"{_BYTES / 1e9:.2f} GB of vectors"


ROWS = (
    Row("memory-training", "peak of training semeval-joint", "retrograd plan", measure_training, Aim(1.1, False)),
    Row("memory-index", "peak of top 20, log Z, gradient at 1 M", "the vectors", measure_index, Aim(1.1, False)),
)
