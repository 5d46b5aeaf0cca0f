"""The memory and the start of a run that stands on a built index, against the same run over a thousandth of the base.

    python benchmarks/given_index.py SCRATCH --rows 1000000

Into SCRATCH, an empty folder, go a base of so many short passages, an index of it in bf16, and two runs of the recipe
``jsa-rag-small-questions`` with a passage tower that rests: one over the whole base, one over a thousandth of it. The
vectors are random, of length 1, but for the 16 that a run compares with its own. Each run is a process of its own and
stops after ``--steps`` steps. ``RssAnon`` is the memory of a process that no file stands behind: its peak over the
steps, less that of the smaller run, is what the base costs; ``texts`` is what the texts of the passages had taken of
it before there was a model. The mapped index is in ``RssFile``, which the system takes back as it needs it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from retrograd.experiments.experiment import Experiment
from retrograd.index.disk.build import build_version
from retrograd.rag.embedding import embed_rows, pick_evenly
from retrograd.rag.index_folder import index_spec
from retrograd.rag.model_parts import build_retriever
from retrograd.recipes import recipe
from retrograd.util.text_files import write_jsonl

CHILD = """
import json, os, sys, time
from pathlib import Path
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import train_and_score
from retrograd.training.gradients import MicroBatchGradients

def memory(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(field + ":"))

start = time.perf_counter()
experiment, steps = Experiment.load(Path(sys.argv[1])), int(sys.argv[3])
before = memory("RssAnon")
data = experiment.data.load(experiment.seed)
report = {"texts": memory("RssAnon") - before, "peak": 0, "seconds": []}
add, begun = MicroBatchGradients.add, time.perf_counter()

def add_and_measure(self, step, micro_batch):
    if step == steps:
        print(json.dumps(report))
        sys.stdout.flush()
        os._exit(0)
    report.setdefault("first", time.perf_counter() - begun)
    begin = time.perf_counter()
    visit = add(self, step, micro_batch)
    report["seconds"].append(time.perf_counter() - begin)
    report["peak"] = max(report["peak"], memory("RssAnon"))
    report["file"] = memory("RssFile")
    return visit

MicroBatchGradients.add = add_and_measure
train_and_score(experiment, data, Path(sys.argv[2]))
"""


def write_data(folder: Path, rows: int) -> Experiment:
    """Write a base and a few questions, and return the experiment over them."""
    folder.mkdir(parents=True)
    passages = (
        {"id": f"p{row}", "title": "", "text": f"Entry {row} of the list is {row * 7919}."} for row in range(rows)
    )
    write_jsonl(folder / "passages.jsonl", passages)
    questions = [{"id": f"q{i}", "question": f"What is entry {i}?", "answers": [str(i * 7919)]} for i in range(64)]
    write_jsonl(folder / "train.jsonl", questions)
    return recipe("jsa-rag-small-questions").with_settings(
        [
            f"data.base={folder / 'passages.jsonl'}",
            f"data.train={folder / 'train.jsonl'}",
            "data.dev=",
            "data.test=",
            "retriever.separate_towers=true",
            "retriever.trained=query",
            "retriever.lexical_dimensions=0",  # 384 numbers a row
            "training.precision=fp32",
            "training.batch_size=4",
            "warm_start.epochs=0",
            f"index.path={folder / 'index'}",
        ]
    )


def write_index(experiment: Experiment, root: Path) -> None:
    """Write an index of random vectors, the 16 that are looked at excepted."""
    data = experiment.data.load(experiment.seed)
    retriever = build_retriever(experiment.retriever, data.task, data.base)
    spec = index_spec(retriever, data.task, data.base, torch.bfloat16)
    real_rows = pick_evenly(range(len(data.base)))
    real = dict(zip(real_rows, embed_rows(retriever.passage_encoder, data.task, data.base, real_rows), strict=True))

    def encode(first: int, stop: int) -> Iterator[torch.Tensor]:
        rng = torch.Generator().manual_seed(first)
        vectors = torch.nn.functional.normalize(torch.randn(stop - first, spec.dimension, generator=rng), dim=1)
        for row in range(first, stop):
            if row in real:
                vectors[row - first] = real[row]
        yield vectors

    build_version(root, spec, encode)


def measure(folder: Path, rows: int, steps: int) -> dict[str, float]:
    """Return what a run of its own process reports over a base of so many rows."""
    experiment = write_data(folder, rows)
    write_index(experiment, folder / "index")
    file = folder / "experiment.toml"
    file.write_text(experiment.to_toml(), encoding="utf-8")
    words = [sys.executable, "-c", CHILD, str(file), str(folder / "run"), str(steps)]
    done = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    """Measure both runs and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scratch", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--steps", type=int, default=4)
    arguments = parser.parse_args()
    table = Table("passages", "RssAnon, MB", "texts, MB", "RssFile, MB", "seconds to the first step", "of a step")
    for rows in (max(100, arguments.rows // 1000), arguments.rows):
        report = measure((arguments.scratch / str(rows)).resolve(), rows, arguments.steps)
        values = [report["peak"], report["texts"], report["file"]]
        seconds = sorted(report["seconds"])[len(report["seconds"]) // 2]
        table.add_row(f"{rows:,}", *(f"{value:,}" for value in values), f"{report['first']:.1f}", f"{seconds:.2f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
