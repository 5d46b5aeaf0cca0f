"""``torchrun -m retrograd train``: two processes, one of which is killed, and the run goes on as if nobody had been."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from tests.untimed import untimed_lines

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.run import resume_run
from retrograd.types import UserError

_LAUNCH = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "retrograd")


def asked(data: Path, models: dict[str, Path]) -> Experiment:
    """Return JSA with carried chains over sampled answers, dropout, a second stage, refreshes and checkpoints."""
    data.mkdir(parents=True)
    base = [{"id": f"p{i}", "title": f"cup {i}", "text": f"the cup number {i} holds tea ."} for i in range(7)]
    questions = [
        {"id": f"q{i}", "question": f"what holds tea ? number {i}", "answers": ["cup", "box"]} for i in range(5)
    ]
    for name, records in (("base", base), ("asked", questions)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (data / f"{name}.jsonl").write_text(lines, encoding="utf-8")
    return Experiment().with_settings([
        "data.kind=questions", f"data.base={data / 'base.jsonl'}", f"data.train={data / 'asked.jsonl'}",
        f"data.dev={data / 'asked.jsonl'}", f"data.test={data / 'asked.jsonl'}", f"retriever.model={models['encoder']}",
        f"generator.model={models['seq2seq']}", "generator.max_target_tokens=4", "retriever.posterior=true",
        "objective.kind=JointStochasticApproximation", "objective.sampler=metropolis", "objective.draws=2",
        "warm_start.epochs=0", "second_stage.epochs=1", "training.targets=sampled", "training.epochs=3",
        "training.batch_size=4", "training.passages=2", "training.refresh_every=2", "training.probe_passages=4",
        "training.precision=fp32", "training.log_every=1", "training.save_every=2", "training.evaluate_every=3",
        "training.retriever_learning_rate=1e-2", "training.generator_learning_rate=1e-2", "retriever.trained=both",
    ])  # fmt: skip


def launched(*words: str) -> subprocess.Popen[str]:
    threads = {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen([*_LAUNCH, *words], stderr=subprocess.PIPE, text=True, env=os.environ | threads)


def second_of(launcher: int) -> int:
    """Return the process of rank 1."""
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    return next(int(one) for one in children if b"\0RANK=1\0" in Path(f"/proc/{one}/environ").read_bytes())


def results(run: Path) -> dict[str, bytes]:
    names = ("predictions.jsonl", "scores.json", "chains/training.safetensors")
    weights = sorted((run / "model").rglob("*.safetensors"))
    files = {str(path.relative_to(run)): path.read_bytes() for path in (*(run / name for name in names), *weights)}
    return files | {"metrics.jsonl": untimed_lines(run / "metrics.jsonl").encode()}


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the process to kill under /proc")
def test_a_killed_process_ends_the_run_which_goes_on(tiny_encoder: Path, tiny_seq2seq: Path, tmp_path: Path) -> None:
    file, whole, out = tmp_path / "asked.toml", tmp_path / "whole", tmp_path / "run"
    experiment = asked(tmp_path / "data", {"encoder": tiny_encoder, "seq2seq": tiny_seq2seq})
    file.write_text(experiment.to_toml(), encoding="utf-8")
    with launched("train", str(file), "--out", str(whole)) as process:
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    steps = [line.split(" · ")[0] for line in said.splitlines() if " · loss" in line]
    assert len(steps) == len(set(steps)), "a line of every step, and not of every rank"

    with launched("train", str(file), "--out", str(out)) as process:
        while not list(out.glob("checkpoints/[!.]*")):
            assert process.poll() is None
            time.sleep(0.01)
        os.kill(second_of(process.pid), signal.SIGKILL)
        said = process.communicate(timeout=300)[1]
    assert process.returncode not in (0, None)
    assert "retrograd" in said
    with pytest.raises(UserError, match=r"saved by 2 processes, but 1 are running; go on with as many: torchrun"):
        resume_run(out)
    with launched("train", "--resume", str(out)) as process:
        said = process.communicate(timeout=300)[1]
    assert process.returncode == 0, said
    assert results(out) == results(whole)
    assert (load_file(out / "chains" / "training.safetensors")["row"] >= 0).any()
    assert open_run(out).model.index_is_current()
