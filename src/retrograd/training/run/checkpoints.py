"""Write the checkpoints of a run, and go on from the newest whole one after a stop."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import UInt8
from torch import Tensor

from retrograd.models.compute.fsdp import gather_moments
from retrograd.rag.indexed_model import gather_model
from retrograd.rag.rag_model import RagModel
from retrograd.training.distributed.ranks import Ranks
from retrograd.training.monitoring.counts import RunCounts
from retrograd.training.run.interrupts import Interrupted, Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.run.saved_state import (
    StageState,
    load_rank_state,
    load_run_state,
    load_stage_start,
    load_stage_state,
    rank_states,
    save_run_state,
    save_stage_state,
)
from retrograd.training.run.seal import find_flaw
from retrograd.types import UserError
from retrograd.util.fingerprints import fingerprint, sha256_of
from retrograd.util.guards import parse_toml, require_at_least
from retrograd.util.progress import say
from retrograd.util.records import read_record, record_mapping
from retrograd.util.text_files import read_json, write_json

__all__ = ["Best", "Checkpoints", "Progress", "read_progress"]

_FILE = "progress.json"


@dataclass(frozen=True)
class Best:
    """The best development score so far, in percent, and where it was reached; ``metric`` is "" where there is none."""

    metric: str = ""
    value: float = 0.0
    stage: str = ""
    step: int = 0


@dataclass(frozen=True)
class Progress:
    """The contents of ``progress.json``, which say how far a run had come.

    ``step`` optimiser steps of ``stage`` were made after ``finished`` other stages. Between two stages ``step`` is 0,
    and no state of a stage is saved. ``experiment`` is a fingerprint of experiment.toml. ``seconds``, ``queries`` and
    ``tokens`` are those of `RunCounts`.
    """

    finished: int = 0
    stage: str = ""
    step: int = 0
    metrics_bytes: int = 0
    experiment: str = ""
    best: Best = field(default_factory=Best)
    seconds: float = 0.0
    queries: int = 0
    tokens: int = 0

    def __post_init__(self) -> None:
        require_at_least(
            0,
            {
                "finished": self.finished,
                "step": self.step,
                "metrics_bytes": self.metrics_bytes,
                "seconds": self.seconds,
                "queries": self.queries,
                "tokens": self.tokens,
            },
        )


class Checkpoints:
    """The checkpoints of a run, which can be stopped at any moment and go on as if it had not been.

    ``minutes`` is how long training goes on at most without a checkpoint, 0 for ever; stages have their own interval in
    steps besides. The newest ``keep`` are kept, 0 is all. ``interrupts`` may ask it to stop. ``counts`` are what the
    run has trained on so far. Saving changes nothing in what is computed. Of several ranks all come here together; the
    first writes, from a folder that all can read they go on.
    """

    def __init__(
        self,
        run: RunDirectory,
        model: RagModel,
        rng: torch.Generator,
        minutes: float = 0.0,
        interrupts: Interrupts | None = None,
        keep: int = 2,
    ) -> None:
        self._run = run
        self._model = model
        self._rng = rng
        self._minutes = minutes
        self._keep = keep
        self._interrupts = interrupts or Interrupts()
        self._ranks = Ranks()
        self.counts = RunCounts()
        self._saved_at = time.monotonic()
        self._progress = Progress()
        self._resume_from: Path | None = None  # the checkpoint in whose stage the run is to go on
        self._state: StageState | None = None  # that of the stage whose steps are being made

    @property
    def finished(self) -> int:
        """Return how many stages are finished."""
        return self._progress.finished

    # ---- going on ------------------------------------------------------------------------------------------------

    def restore(self) -> None:
        """Go on from the newest checkpoint that is whole; from the beginning, with a message, where there is none.

        Raises `UserError` for a checkpoint of another experiment or model or number of ranks, and where
        ``metrics.jsonl`` has lost lines that no checkpoint can do without.
        """
        newest = self._newest_whole() if self._ranks.first else None
        number = self._ranks.broadcast(-1 if newest is None else self._run.checkpoints().index(newest))
        if number >= 0:
            folder = self._run.checkpoints()[number]
            self._go_on_from(folder, read_progress(folder))

    def _newest_whole(self) -> Path | None:
        self._run.remove_leftovers()
        for folder in self._run.checkpoints():
            flaw = find_flaw(folder)
            if flaw is not None:
                say(f"{folder} is damaged ({flaw}): it is removed, and the one before it is used")
                shutil.rmtree(folder)
                continue
            progress = read_progress(folder)
            if progress.metrics_bytes <= self._run.metrics_bytes():
                return folder
            say(f"metrics.jsonl is shorter than when {folder} was saved: the one before it is used")
        if self._run.checkpoints():
            raise UserError(
                f"{self._run.path / 'metrics.jsonl'} has lost lines that were there at the oldest checkpoint; put it "
                f"back, or remove {self._run.path / 'checkpoints'} to train anew"
            )
        say(f"{self._run.path} has no checkpoint to go on from: training begins anew")
        self._run.cut_metrics(0)
        return None

    def _go_on_from(self, folder: Path, progress: Progress) -> None:
        # Checkpoints of versions before 0.2.0 have the SHA-256 of the file as it is.
        if progress.experiment not in (_experiment_fingerprint(self._run), sha256_of(self._run.experiment)):
            raise UserError(
                f"{self._run.experiment} has changed since {folder} was saved; put it back as it was, or train the "
                f"changed one into another folder"
            )
        load_run_state(folder, self._model, self._rng)
        load_rank_state(folder, self._ranks, self._model, None)
        self._run.cut_metrics(progress.metrics_bytes)
        self.counts.resume(progress.seconds, progress.queries, progress.tokens)
        self._progress = progress
        self._resume_from = folder if progress.step > 0 else None
        where = f"step {progress.step} of {progress.stage}" if progress.step else f"{progress.finished} finished stages"
        say(f"going on after {where}, from {folder}")

    @property
    def midway(self) -> bool:
        """Return whether the next stage goes on from a checkpoint within it."""
        return self._resume_from is not None

    @property
    def stage_start(self) -> UInt8[Tensor, " bytes"]:
        """Return the state of the random source when the next stage began, or begins now."""
        return self._rng.get_state() if self._resume_from is None else load_stage_start(self._resume_from)

    @contextmanager
    def stage(self, state: StageState) -> Iterator[int]:
        """Enclose the steps of a stage, and yield how many were made before, after which ``state`` is restored.

        Inside, who asks to stop waits for `after_step`. Raises `UserError` for a stage that is not the checkpoint's.
        """
        with self._interrupts.hold(self._ranks.any):
            if self._resume_from is not None:
                if state.name != self._progress.stage:
                    raise UserError(
                        f"{self._resume_from} was saved in {self._progress.stage}, but the next stage is {state.name}"
                    )
                load_stage_state(self._resume_from, state, len(self._model.base), self._progress.step)
                load_rank_state(self._resume_from, self._ranks, self._model, state.sampler)
            steps_before = self._progress.step
            self._resume_from, self._state = None, state
            self.counts.mark()
            yield steps_before
            self._state = None
            self._advance(finished=self.finished + 1, stage="", step=0)

    # ---- saving --------------------------------------------------------------------------------------------------

    def after_step(self, step: int, due: bool) -> None:
        """Save where a checkpoint is ``due`` or late, and where a stop is requested: then raise `Interrupted`.

        ``step`` steps of the present stage are made. Raises `UserError` where a checkpoint that is due, or was asked
        for, cannot be written; where only the clock wants one, that is said, and training goes on.
        """
        assert self._state is not None
        self._advance(finished=self.finished, stage=self._state.name, step=step)
        is_stopping = self._ranks.any(self._interrupts.is_requested)
        is_late = self._minutes > 0 and time.monotonic() - self._saved_at >= 60 * self._minutes
        if due or is_stopping:
            self._save()
        elif self._ranks.broadcast(is_late):
            try:
                self._save()
            except UserError as error:
                say(f"{error}; training goes on without")
                self._saved_at = time.monotonic()
        if is_stopping:
            raise Interrupted(f"after step {step} of {self._state.name}")

    @contextmanager
    def save_when_interrupted(self) -> Iterator[None]:
        """Enclose all that comes between and after the steps of stages; a stop there loses no finished stage."""
        try:
            yield
        except Interrupted:
            # In the steps of a stage it has been saved already, and what was only just read is still there. Several
            # ranks leave what they do together at different places, and could not save together any more.
            if self._interrupts.is_repeated or self._state is not None or self.midway or self._ranks.count > 1:
                raise
            self._save()
            raise Interrupted(f"with {self.finished} stages finished") from None

    def add_best(self, scores: Mapping[str, float], stage: str, step: int) -> dict[str, float]:
        """Return scores on development data for the log, with the best of the task's primary metric so far."""
        metric, best = self._model.task.primary_metric, self._progress.best
        if metric not in scores:
            return dict(scores)
        if not best.metric or scores[metric] > best.value:
            best = Best(metric, scores[metric], stage, step)
        self._advance(self.finished, self._progress.stage, self._progress.step, best)
        return {**scores, f"best_{metric}": best.value}

    def _advance(self, finished: int, stage: str, step: int, best: Best | None = None) -> None:
        self._progress = Progress(finished, stage, step, best=best or self._progress.best)

    def _save(self) -> None:
        of_ranks = rank_states(self._ranks, self._model, self._rng if self._state is None else self._state.sampler)
        if self._state is not None:
            self._state.index.share_reads()
        tokens = self.counts.tokens_of_all()
        with gather_model(self._model), nullcontext() if self._state is None else gather_moments(self._state.optimiser):
            if self._ranks.first:
                self._write(of_ranks, tokens)
        self._saved_at = time.monotonic()

    def _write(self, of_ranks: dict[str, Tensor], tokens: int) -> None:
        now, state = self._progress, self._state
        experiment = _experiment_fingerprint(self._run)
        progress = replace(
            now,
            metrics_bytes=self._run.metrics_bytes(),
            experiment=experiment,
            seconds=self.counts.seconds,
            queries=self.counts.queries,
            tokens=tokens,
        )
        where = now.stage or f"after {now.finished} stages"
        with self._run.writing("a checkpoint"), self._run.new_checkpoint(where, now.step, self._keep) as folder:
            save_run_state(folder, self._model, self._rng, of_ranks)
            if state is not None:
                save_stage_state(folder, state)
            write_json(folder / _FILE, record_mapping(progress))


def _experiment_fingerprint(run: RunDirectory) -> str:
    """Return a fingerprint of what experiment.toml has to compute: all sections but the one of trackers."""
    sections = parse_toml(run.experiment.read_text(encoding="utf-8"), str(run.experiment))
    return fingerprint([json.dumps({name: sections[name] for name in sections if name != "track"}, sort_keys=True)])


def read_progress(folder: Path) -> Progress:
    """Return how far the run had come when the checkpoint in ``folder`` was saved."""
    record = read_json(folder / _FILE)
    return read_record(Progress, record if isinstance(record, dict) else {}, str(folder / _FILE))
