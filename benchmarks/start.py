"""Seconds from the call of `retrograd train` to its first step, with what an earlier run has embedded and without it.

    python benchmarks/start.py FOLDER --runs 2

FOLDER holds ``passages.jsonl`` and ``train.jsonl``. The recipe ``jsa-rag-small-questions`` is started with a passage
tower that rests (separate towers, the query's trained): first with an empty cache (``--uncached``: before that, without
one), then ``--runs`` times with what that left. Each start is a process of its own that ends where the first gradient
would be computed. ``all`` are seconds from its beginning, imports included, ``index`` those of getting the index; those
of the processor say the same where other programs run beside it. The cache lies in a temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

RECIPE = "jsa-rag-small-questions"
CHILD = """
import json, os, sys, time
from pathlib import Path
from retrograd.commands import load_experiment
from retrograd.experiments.run import run_experiment
from retrograd.training.gradients import MicroBatchGradients
from retrograd.training.refresh import fresh_index

spent = []
embed = fresh_index.embed_base_if_stale

def embed_timed(model):
    start, processor = time.perf_counter(), time.process_time()
    embed(model)
    spent[:] = [time.perf_counter() - start, time.process_time() - processor]

def stop(self, *arguments):
    print(json.dumps([*spent, time.process_time()]))
    sys.stdout.flush()
    os._exit(0)

fresh_index.embed_base_if_stale = embed_timed
MicroBatchGradients.add = stop
run_experiment(load_experiment(sys.argv[1], sys.argv[3:]), Path(sys.argv[2]))
"""


def start(settings: list[str], cache: Path) -> list[float]:
    """Return the seconds until the first step of a run: all, of the index, and both of the processor."""
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        command = [sys.executable, "-c", CHILD, RECIPE, str(Path(folder) / "run"), *settings]
        environment = os.environ | {"RETROGRAD_CACHE": str(cache)}
        done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
        index, index_processor, processor = json.loads(done.stdout.splitlines()[-1])
        return [time.perf_counter() - begin, index, processor, index_processor]


def main() -> None:
    """Start the runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=2, help="starts with a filled cache")
    parser.add_argument("--uncached", action="store_true", help="start without the cache as well")
    parser.add_argument("--set", dest="changes", action="append", default=[], help="more settings of the experiment")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    settings = [
        f"data.base={data / 'passages.jsonl'}",
        f"data.train={data / 'train.jsonl'}",
        "data.dev=",
        "data.test=",
        "retriever.separate_towers=true",
        "retriever.trained=query",
        "training.precision=fp32",
        *arguments.changes,
    ]
    table = Table("start", "all", "index", "processor: all", "index", "index, of the first", box=None, pad_edge=False)
    console = Console(width=120)
    with tempfile.TemporaryDirectory() as cache:
        starts = [("without the cache", "index.cache=false")] * arguments.uncached
        starts += [("with an empty cache", "index.cache=true")]
        starts += [("with what it left", "index.cache=true")] * arguments.runs
        first = 0.0
        for name, setting in starts:
            seconds = start([*settings, setting], Path(cache))
            first = first or seconds[3]
            table.add_row(name, *(f"{value:.1f}" for value in seconds), f"{seconds[3] / first:.4f}")
            console.print(table)


if __name__ == "__main__":
    main()
