"""Train an experiment in processes that are killed, one after the other, until one ends: EXPERIMENT OUT KILL…

A KILL is ``module:name:count``, the place (the ``count``-th call there does not return), or ``moment:share``, so much
of the seconds that a run without kills takes. A process that ends before it is to be killed is the last.

An EXPERIMENT that ends in ``.py`` is a program that calls `rg.train`, with ``out`` for the folder.
"""

from __future__ import annotations

import importlib
import os
import runpy
import signal
import sys
import time
from functools import reduce
from pathlib import Path

import torch

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import resume_run, run_experiment


def die_at(module: str, name: str, count: int) -> None:
    """Replace what is called ``name`` there by something that kills this process when it has been called so often."""
    *owners, last = name.split(".")
    owner = reduce(getattr, owners, importlib.import_module(module))
    real, calls = getattr(owner, last), []

    def deadly(*arguments: object, **options: object) -> object:
        calls.append(1)
        if len(calls) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **options)

    setattr(owner, last, deadly)


def trained(experiment: Path, out: Path, kill: str, seconds: float) -> int:
    """Return the exit status of a process that begins or resumes the run; negative for the signal that killed it."""
    child = os.fork()
    if child == 0:
        if kill and not kill.startswith("moment:"):
            module, name, count = kill.split(":")
            die_at(module, name, int(count))
        if (out / "experiment.toml").exists():
            resume_run(out)
        elif experiment.suffix == ".py":
            runpy.run_path(str(experiment), init_globals={"out": out})
        else:
            run_experiment(Experiment.load(experiment), out)
        os._exit(0)
    until = time.monotonic() + seconds * float(kill.removeprefix("moment:")) if kill.startswith("moment:") else None
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if until is not None and time.monotonic() > until:
            os.kill(child, signal.SIGKILL)
            until = None
        time.sleep(0.001)


def main() -> None:
    experiment, out, kills = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]
    torch.set_num_threads(1)
    seconds = 0.0
    if any(kill.startswith("moment:") for kill in kills):
        began = time.monotonic()
        assert trained(experiment, out.with_name("measured"), "", 0.0) == 0
        seconds = time.monotonic() - began
    for kill in [*kills, ""]:
        if experiment.suffix == ".toml" and out.exists() and not (out / "experiment.toml").exists():
            # Killed before there was a run to go on with.
            for left in out.iterdir():
                left.unlink()
        status = trained(experiment, out, kill, seconds)
        sys.stdout.write(f"{kill or 'to the end'}: {'killed' if status == -signal.SIGKILL else status}\n")
        sys.stdout.flush()
        if status != -signal.SIGKILL:
            sys.exit(status)


if __name__ == "__main__":
    main()
