"""Embed the base in another process, with a snapshot of the passage tower, while training goes on in this one.

The two share a folder and a pipe. Into the folder go, once, the passages as the tower reads them; then, for each
snapshot, the tower and a job description; out comes an index, which appears complete or not at all. The pipe
says which snapshot is next; when it closes, the process ends, so none outlives the training. A training that is killed
leaves its folder, which `remove_leftovers` removes.

A fresh interpreter, never a fork: forking a process whose libraries hold threads or a GPU may hang it. Nor does it run
the user's script a second time, as `multiprocessing` does, so a script needs no guard around its main part.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from retrograd.index.exact import ExactIndex
from retrograd.models.compute.compute import Compute
from retrograd.models.encoder import Encoder
from retrograd.models.settings import ComputePrecision, Pooling
from retrograd.rag.embedding import passage_texts
from retrograd.rag.rag_model import RagModel
from retrograd.types import UserError
from retrograd.util.files import lock_folder
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, read_jsonl, write_json, write_jsonl

__all__ = ["IndexWorker", "remove_leftovers", "serve"]

_PATIENCE_SECONDS = 10.0
_PREFIX = "background-"


@dataclass(frozen=True)
class _Job:
    """The contents of ``job.json``: all that the process must know besides the tower's own folder."""

    rows: int
    base_fingerprint: str
    encoder_fingerprint: str
    pooling: Pooling
    normalise: bool
    max_tokens: int
    token_budget: int
    device: str
    precision: ComputePrecision
    threads: int


class IndexWorker:
    """A handle on the process that embeds, which takes one snapshot at a time.

    Training waits here until all passages' texts are written, and then goes on while the process imports what it needs.
    While that embeds, both share processors or GPU, and a step takes longer. Its memory is a second passage tower and
    one block of embeddings; on disk, in ``scratch``, lie the passages' texts and up to two indexes. Close it.
    """

    def __init__(self, model: RagModel, scratch: Path) -> None:
        self._device = model.retriever.passage_encoder.device
        self._folder = Path(tempfile.mkdtemp(dir=scratch, prefix=_PREFIX))
        self._alive = contextlib.ExitStack()
        self._alive.enter_context(lock_folder(self._folder))
        self._jobs = 0
        self._job: Path | None = None
        try:
            blocks = passage_texts(model.task, model.base)
            write_jsonl(self._folder / "texts.jsonl", ({"texts": list(texts)} for texts in blocks))
            with self._messages.open("wb") as messages:
                self.process = subprocess.Popen(
                    [sys.executable, "-c", f"from {__name__} import serve; serve({os.getpid()})"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=messages,
                    env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
                )
        except BaseException:
            self._remove()
            raise

    @property
    def idle(self) -> bool:
        """Return whether the process has no snapshot to embed."""
        return self._job is None

    def embed_snapshot(self, model: RagModel) -> None:
        """Write the passage tower as it is now, and have the base embedded with it. Call it only when idle.

        Training waits while the tower is written and hashed: 0.3 s for 22 M weights. Raises `UserError` if the process
        is no more.
        """
        tower = model.retriever.passage_encoder
        if model.passage_side.own_posterior is not None:
            raise UserError(
                "another process embeds for one passage tower, and the posterior has its own; refresh the index here "
                '(training.refresh = "every"), or share it (retriever.posterior_passages = "shared")'
            )
        if tower.lexical is not None:
            raise UserError(
                "hybrid search cannot be refreshed by another process, which has no words to match; refresh the index "
                'here (training.refresh = "every"), or search without (retriever.lexical_dimensions = 0)'
            )
        folder = self._folder / f"snapshot-{self._jobs}"
        tower.save(folder / "tower")
        job = _Job(
            rows=len(model.base),
            base_fingerprint=model.base.fingerprint,
            encoder_fingerprint=model.passage_fingerprint(),
            pooling=tower.pooling,
            normalise=tower.normalise,
            max_tokens=tower.max_tokens,
            token_budget=tower.token_budget,
            device=str(tower.device),
            precision=model.precision,
            threads=torch.get_num_threads(),
        )
        write_json(folder / "job.json", record_mapping(job))
        self._send(folder)
        self._job, self._jobs = folder, self._jobs + 1

    def take_finished(self) -> ExactIndex | None:
        """Return the index of the last snapshot once, as soon as it is complete; None until then.

        It is mapped from its file; on a GPU training waits while all of it is copied there. Raises `UserError` if the
        process is no more.
        """
        if self._job is None or not (self._job / "index").exists():
            self._require_alive()
            return None
        index = ExactIndex.load(self._job / "index", device=self._device)
        # Files that are mapped keep their bytes until nobody maps them.
        shutil.rmtree(self._job, ignore_errors=True)
        self._job = None
        return index

    def wait(self, seconds: float) -> None:
        """Wait until the snapshot is embedded or ``seconds`` are over. Raises `UserError` if the process dies."""
        for _ in range(max(1, round(seconds / 0.05))):
            if self._job is None or (self._job / "index").exists():
                return
            self._require_alive()
            try:
                self.process.wait(0.05)
            except subprocess.TimeoutExpired:
                continue

    def close(self) -> None:
        """End the process, whatever it is doing, and remove its folder."""
        if self.process.stdin is not None:
            with contextlib.suppress(OSError):  # the process may be gone, with input still unread
                self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._remove()

    def _remove(self) -> None:
        self._alive.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def _messages(self) -> Path:
        return self._folder / "messages.txt"

    def _send(self, folder: Path) -> None:
        self._require_alive()
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(str(folder)).encode() + b"\n")
            self.process.stdin.flush()
        except OSError:
            self.process.wait(_PATIENCE_SECONDS)
            self._require_alive()

    def _require_alive(self) -> None:
        status = self.process.poll()
        if status is None:
            return
        if status < 0:  # mostly the system, when memory runs out, without a message
            how = f"was killed by signal {-status}; give the machine more memory"
        else:
            lines = self._messages.read_text(encoding="utf-8", errors="replace").strip().splitlines()
            how = f"ended with exit status {status} ({lines[-1].strip() if lines else 'without a message'}); fix that"
        raise UserError(
            f"the background process that embeds the base {how}, or set training.refresh = every, which embeds it in "
            f"the training process"
        )


def remove_leftovers(scratch: Path) -> None:
    """Remove the folders of trainings that were killed; the folder of a live training is locked, and stays."""
    for folder in scratch.glob(f"{_PREFIX}*"):
        with contextlib.suppress(UserError), lock_folder(folder):
            shutil.rmtree(folder, ignore_errors=True)


def serve(training: int) -> None:
    """Embed, in the process, each snapshot whose folder is a line of the input, until the input ends.

    ``training`` is the id of the process that started it. Asked of the system here, it would be another's if that had
    died already.
    """
    for line in sys.stdin:
        folder = Path(json.loads(line))
        values = read_json(folder / "job.json")
        job = read_record(_Job, values if isinstance(values, dict) else {}, str(folder / "job.json"))
        torch.set_num_threads(job.threads)
        embed_job(folder, job, _while_child_of(training, read_texts(folder.parent / "texts.jsonl")))


def embed_job(folder: Path, job: _Job, blocks: Iterable[list[str]]) -> None:
    """Write ``folder/index``, as `build_index` would build it with the tower of the snapshot."""
    reading = (job.pooling, job.normalise, job.max_tokens, job.token_budget)
    tower = Encoder.open(str(folder / "tower"), *reading).to(job.device)
    ExactIndex.from_blocks(
        _embed(tower, blocks, Compute(torch.device(job.device), job.precision)),
        job.rows,
        base_fingerprint=job.base_fingerprint,
        encoder_fingerprint=job.encoder_fingerprint,
        path=folder / "index",
    )


def read_texts(path: Path) -> Iterator[list[str]]:
    """Read the blocks of texts that `IndexWorker` wrote."""
    for _, record in read_jsonl(path):
        texts = record["texts"]
        assert isinstance(texts, list)
        yield [str(text) for text in texts]


def _embed(tower: Encoder, blocks: Iterable[list[str]], compute: Compute) -> Iterator[Float[Tensor, "n D"]]:
    for texts in blocks:
        with compute.autocast():
            yield tower.embed_passages(texts)


def _while_child_of(parent: int, blocks: Iterable[list[str]]) -> Iterator[list[str]]:
    """Yield the blocks while ``parent`` is this process's parent, and exit at the next block when it is not."""
    for texts in blocks:
        if os.getppid() != parent:
            sys.exit("the training process is gone")
        yield texts
