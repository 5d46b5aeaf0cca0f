"""Run by test_build.py in a process of its own: builds a tiny index again and again, killed each time (SIGKILL) when
another line of the code is about to run. One import of torch serves all, for each build is a fork.

Usage: build_and_die.py FOLDER SEED. Leaves FOLDER/whole, never killed; FOLDER/00 … 19, killed once and built again; and
FOLDER/many, killed many times. Prints how often "many" was killed.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import torch

import retrograd
from retrograd.index.disk import storage
from retrograd.index.disk.build import IndexSpec, build_version
from retrograd.index.exact import ExactIndex

ROWS, KILLS = 17, 20
WATCHED = (str(Path(retrograd.__file__).parent), __file__, shutil.__file__, tempfile.__file__)
OLD = IndexSpec("base", "old encoder", "in the test", ROWS, 4, shard_rows=5)
NEW = IndexSpec("base", "new encoder", "in the test", ROWS, 4, torch.bfloat16, shard_rows=4, source="a run")


def vectors(spec: IndexSpec, first: int, stop: int) -> torch.Tensor:
    return torch.sin(torch.arange(first, stop)[:, None] * len(spec.encoding) + torch.arange(4) + float(spec is NEW))


def build(root: Path, spec: IndexSpec) -> None:
    def encode(first: int, stop: int) -> Iterator[torch.Tensor]:
        yield from vectors(spec, first, stop).split(3)

    build_version(root, spec, encode, keep=1)


def append_by_halves(file, digest, raw) -> None:
    """Replace the writer's own function, so that a kill also falls inside a write."""
    half = len(raw) // 2
    file.write(raw[:half])
    file.flush()
    file.write(raw[half:])
    file.flush()
    digest.update(raw)


def traced_build(root: Path, last_line: int) -> int:
    """Build, and count the lines that run; when ``last_line`` is reached, die."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object):
        nonlocal lines
        if not frame.f_code.co_filename.startswith(WATCHED):
            return None
        if event == "line":
            lines += 1
            if lines == last_line:
                os.kill(os.getpid(), signal.SIGKILL)
        return trace

    sys.settrace(trace)
    build(root, NEW)
    sys.settrace(None)
    return lines


def killed(root: Path, last_line: int) -> bool:
    """Build in a child that dies at ``last_line``; return whether it died there. Its errors are raised."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            traced_build(root, last_line)
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, f"the build in {root} failed"
    return False


def require_readable(root: Path) -> None:
    """Check that a reader finds the old version or the new one, whole, after a kill."""
    index = ExactIndex.load(root)
    spec = {"old encoder": OLD, "new encoder": NEW}[index.encoder_fingerprint]
    assert torch.equal(index.vectors(torch.arange(ROWS)), vectors(spec, 0, ROWS).to(spec.dtype).float())


def main(folder: Path, seed: int) -> None:
    storage._append = append_by_halves
    rng = random.Random(seed)
    for name in ("counted", "whole", "many", *(f"{number:02d}" for number in range(KILLS))):
        build(folder / name, OLD)
    total = traced_build(folder / "counted", -1)
    build(folder / "whole", NEW)
    for number, line in enumerate(rng.sample(range(1, total + 1), KILLS)):
        root = folder / f"{number:02d}"
        assert killed(root, line)
        require_readable(root)
        assert not killed(root, -1)
    kills = 0
    while kills < KILLS and killed(folder / "many", rng.randint(1, total)):
        kills += 1
        require_readable(folder / "many")
    assert not killed(folder / "many", -1)
    sys.stdout.write(str(kills))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
