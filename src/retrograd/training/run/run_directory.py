"""Read and write the folder of one run: its experiment, its machine, its log and its results.

``data/`` and ``start/`` (of a run from Python: its examples and passages, and the model it began with),
``experiment.toml`` (resolved), ``environment.json``, ``data.json`` (what was drawn of which data), ``base.arrow`` and
``labels.json`` (what the model was trained on and needs again), ``neighbours-before.jsonl`` and
``neighbours-after.jsonl`` (what the retriever found for a sample of the test examples), ``metrics.jsonl`` (one line per
logged step, and per alarm), ``failed-batch.jsonl`` (where a gradient was not finite),
``tracking/`` and ``tracked.json`` (the files of trackers, and the name by which they know the run),
``checkpoints/`` (`retrograd.training.run.saved_state` says what is in one), ``chains/`` (where Markov chains stood),
``targets/`` (which of several answers was trained on, and how often), ``model/`` (the finished model),
``calibration.json`` (where a decision was fitted), ``abstention.json`` (where a threshold was fitted), and
``predictions.jsonl``, ``confidence.json`` and ``scores.json``.
"""

from __future__ import annotations

import json
import math
import os
import shlex
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from retrograd.models.compute.precision import PrecisionChoice
from retrograd.models.compute.precision_cache import PrecisionSeconds
from retrograd.objectives.checks import NotFiniteError
from retrograd.rag.indexed_model import gather_model
from retrograd.rag.rag_model import RagModel
from retrograd.training.run.environment import FP32_BEFORE, describe_environment, update_environment
from retrograd.training.run.seal import seal
from retrograd.training.sampling.chains import Chains
from retrograd.training.sampling.targets import Targets
from retrograd.types import Example, UserError
from retrograd.util.files import (
    advise_on_writing,
    atomic_directory,
    atomic_file,
    find_current_or_backup,
    is_unfinished,
    open_to_umask,
    remove_unfinished,
)
from retrograd.util.guards import JsonObject, JsonValue, finite_number
from retrograd.util.records import read_value
from retrograd.util.text_files import read_json, write_json, write_jsonl

__all__ = ["SCORE_PARTS", "TIMES", "RunDirectory"]

_PREPARED = ("data", "start")
"""Folders that are written before a run from Python begins."""

SCORE_PARTS = ("answers", "neighbours", "citations", "confidence")
"""The tables of scores in ``scores.json``."""

TIMES = ("time", "at", "queries_per_second")
"""The fields of a line of ``metrics.jsonl`` that a clock gives; all others are the same when a run is repeated."""


class RunDirectory:
    """A folder that belongs to one run. All files are written atomically but ``metrics.jsonl``, which grows.

    Without ``is_writer`` it belongs to a rank other than the first, which leaves all writing to the first.
    """

    def __init__(self, path: Path, is_writer: bool = True) -> None:
        self.path = path
        self.is_writer = is_writer

    @classmethod
    def create(
        cls, path: Path, experiment_toml: str, precision: str, seconds: PrecisionSeconds | None = None
    ) -> RunDirectory:
        """Create a run with its resolved experiment, the machine, the precision and the seconds it was chosen by.

        Raises `UserError` if something is there but the data and the first model of a run from Python.
        """
        cls.require_free(path, prepared=True)
        path.mkdir(parents=True, exist_ok=True)
        remove_unfinished(path)
        run = cls(path)
        with atomic_file(run.experiment) as temporary:
            temporary.write_text(experiment_toml, encoding="utf-8")
        write_json(path / "environment.json", describe_environment(precision, seconds))
        return run

    @staticmethod
    def require_free(path: Path, prepared: bool = False) -> None:
        """Raise `UserError` if ``path`` is a file, or a folder with something in it.

        What killed processes left unfinished does not count, nor, if ``prepared``, do the data and the first model of a
        run from Python, which are written before it begins.
        """
        allowed = _PREPARED if prepared else ()
        if path.is_file() or (
            path.exists() and any(entry.name not in allowed and not is_unfinished(entry) for entry in path.iterdir())
        ):
            raise UserError(f"{path} exists and is not empty; choose another folder with --out, or remove it first")

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run. Raises `UserError` for a folder that is not a run."""
        run = cls(path)
        if not run.experiment.exists():
            reason = "it has no experiment.toml" if path.is_dir() else "there is no such folder"
            if runs := sorted(path.glob("*/experiment.toml")):
                raise UserError(
                    f"{path} is not a run, but holds {len(runs)}; give one of them, such as {runs[0].parent}"
                )
            raise UserError(f"{path} is not a run ({reason}); give a folder that `retrograd train` wrote")
        return run

    @property
    def experiment(self) -> Path:
        return self.path / "experiment.toml"

    @property
    def recipe(self) -> Path:
        """Return the file of the recipe that the experiment is named after, as it was when the run began."""
        return self.path / "recipe.toml"

    @property
    def controls(self) -> Path:
        """Return the file of the scores of the run's controls, which a study writes."""
        return self.path / "controls.json"

    @property
    def data(self) -> Path:
        """Return the folder of the examples and passages of a run from Python."""
        return self.path / _PREPARED[0]

    @property
    def start(self) -> Path:
        """Return the folder of the model that a run from Python began with."""
        return self.path / _PREPARED[1]

    @property
    def base(self) -> Path:
        """Return the file of the knowledge base, as it was in training."""
        return self.path / "base.arrow"

    @property
    def labels(self) -> Path:
        """Return the file of the task's labels with their words, and of the type constraints that were learned."""
        return self.path / "labels.json"

    @property
    def calibration(self) -> Path:
        """Return the file of the decision fitted on development data, with the scores before and after."""
        return self.path / "calibration.json"

    @property
    def abstention(self) -> Path:
        """Return the file of the threshold fitted on development data, with coverage and risk there."""
        return self.path / "abstention.json"

    def neighbours(self, when: Literal["before", "after"]) -> Path:
        """Return the file of what the retriever finds for a sample of the test examples before or after training."""
        return self.path / f"neighbours-{when}.jsonl"

    @property
    def data_record(self) -> Path:
        """Return the file that describes the data drawn: the seed, and counts by part and label."""
        return self.path / "data.json"

    @property
    def model(self) -> Path:
        """Return the folder of the finished model. Raises `UserError` while there is none."""
        folder = find_current_or_backup(self.path / "model")
        if not folder.exists():
            raise UserError(
                f"{self.path} has no finished model, since its training did not end; go on with it: "
                f"retrograd train --resume {shlex.quote(str(self.path))}"
            )
        return folder

    @property
    def has_model(self) -> bool:
        """Return whether there is a finished model."""
        return find_current_or_backup(self.path / "model").exists()

    @property
    def has_ended(self) -> bool:
        """Return whether the run has a model and its scores on the test data, which are written last."""
        return self.has_model and self.scores_file.exists()

    @property
    def scores_file(self) -> Path:
        """Return the file of the scores on the test data."""
        return self.path / "scores.json"

    def scores(self) -> dict[str, dict[str, float]]:
        """Return the scores on the test data in percent, by name: those of each of `SCORE_PARTS`.

        They are empty where the run had no test data, and where an older version has not written them.
        """
        record = self._score_record()
        return {part: _finite_numbers(record.get(part)) for part in SCORE_PARTS}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Return the 95 % intervals of the scores over the test examples, of those that have one."""
        table = self._score_record().get("intervals")
        ends = {name: _finite_numbers(value) for name, value in table.items()} if isinstance(table, dict) else {}
        return {name: (pair["low"], pair["high"]) for name, pair in ends.items() if {"low", "high"} <= pair.keys()}

    def trivial_scores(self) -> dict[str, float]:
        """Return the scores of the negative answer to every test example, where the task has one."""
        return _finite_numbers(self._score_record().get("trivial"))

    def _score_record(self) -> JsonObject:
        record = read_json(self.scores_file) if self.scores_file.exists() else {}
        return record if isinstance(record, dict) else {}

    def all_scores(self) -> dict[str, float]:
        """Return the scores of all parts in one table."""
        return {name: value for part in self.scores().values() for name, value in part.items()}

    def recorded_precision(self, device: torch.device | None = None) -> PrecisionChoice | None:
        """Return the precision that the run computes in; None where it recorded none, or, with a ``device``, where it
        ran on another type of device."""
        path = self.path / "environment.json"
        record = read_json(path) if path.exists() else None
        if not isinstance(record, dict) or "precision" not in record:
            return None
        if device is not None and update_environment(record)["device"] != device.type:
            return None
        precision, seconds = record["precision"], record.get("precision_seconds")
        if precision not in ("fp32", "bf16", FP32_BEFORE):
            raise UserError(f"{path}: precision is {precision!r}; expected 'fp32' or 'bf16'")
        recorded = None if seconds is None else read_value(PrecisionSeconds, seconds, f"{path}: precision_seconds")
        assert recorded is None or isinstance(recorded, PrecisionSeconds)
        return PrecisionChoice("bf16" if precision == "bf16" else "fp32", recorded)

    def changed_environment(self, precision: str, seconds: PrecisionSeconds | None = None) -> list[str]:
        """Describe what has changed since ``environment.json`` was written, and write the present environment."""
        path, now = self.path / "environment.json", describe_environment(precision, seconds)
        before = read_json(path) if path.exists() else now
        if self.is_writer:
            write_json(path, now)
        old = update_environment(before) if isinstance(before, dict) else {}
        return [f"{name} was {old.get(name)}, is {value}" for name, value in now.items() if old.get(name) != value]

    def require_finite(self, norm: float, examples: Sequence[Example], stage: str, step: int) -> None:
        """Raise `UserError` where the gradient of step ``step`` (from 0) has a ``norm`` that is not finite.

        The examples are then kept in ``failed-batch.jsonl``.
        """
        if not math.isfinite(norm):
            self._refuse("the gradient is not finite", examples, stage, step)

    @contextmanager
    def guard(self, examples: Sequence[Example], stage: str, step: int) -> Iterator[None]:
        """Raise `UserError`, and keep the examples as `require_finite` does, if the block raises `NotFiniteError`."""
        try:
            yield
        except NotFiniteError as error:
            self._refuse(str(error), examples, stage, step)

    def _refuse(self, what: str, examples: Sequence[Example], stage: str, step: int) -> None:
        file = self.path / "failed-batch.jsonl"
        write_jsonl(file, ({"id": e.id, "query": e.query, "targets": list(e.targets)} for e in examples))
        raise UserError(
            f"{stage}, step {step + 1}: {what}; the batch is kept in {file}: look at it, lower the learning rates, "
            f"raise the temperature, or set training.precision = fp32"
        ) from None

    def log(self, step: int, stage: str, values: Mapping[str, int | float]) -> None:
        """Append one line to ``metrics.jsonl``: the stage, the optimiser step (from 1), the time, and the values by
        name.
        """
        self._append({"stage": stage, "step": step} | {name: _finite_or_none(value) for name, value in values.items()})

    def log_alarm(self, step: int, stage: str, alarm: str, says: str, remedy: str) -> None:
        """Append an alarm to ``metrics.jsonl``, with its sentence and its remedy."""
        self._append({"stage": stage, "step": step, "alarm": alarm, "says": says, "remedy": remedy})

    def _append(self, record: Mapping[str, JsonValue]) -> None:
        if not self.is_writer:
            return
        line = {**record, "at": datetime.now(UTC).isoformat(timespec="seconds")}
        with self.writing("a line of metrics.jsonl"), self._metrics.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, allow_nan=False, ensure_ascii=False) + "\n")

    def metrics_bytes(self) -> int:
        """Return the length of ``metrics.jsonl``, all of which is then on the disk."""
        if not self._metrics.exists():
            return 0
        with self._metrics.open("rb") as file:
            os.fsync(file.fileno())
        return self._metrics.stat().st_size

    def cut_metrics(self, size: int) -> None:
        """Truncate ``metrics.jsonl`` to its first ``size`` bytes."""
        if self.is_writer and self._metrics.exists():
            os.truncate(self._metrics, size)

    @property
    def _metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @contextmanager
    def new_checkpoint(self, stage: str, step: int, keep: int) -> Iterator[Path]:
        """Yield a folder to fill, which becomes ``checkpoints/NUMBER-STAGE-step-…``, sealed.

        All but the newest ``keep`` are then removed (0: none).
        """
        number = 1 + max(map(_number, self.checkpoints()), default=0)
        name = f"{number:04d}-{_file_name(stage)}-step-{step:07d}"
        with atomic_directory(self.path / "checkpoints" / name) as temporary:
            yield temporary
            open_to_umask(temporary)
            seal(temporary)
        for old in self.checkpoints()[keep:] if keep else []:
            # Aside first: what is half removed must not be taken for a checkpoint.
            shutil.rmtree(old.rename(old.with_name(f".{old.name}.removed.tmp")))

    def checkpoints(self) -> list[Path]:
        """Return the folders of all checkpoints, the newest first."""
        # Each stage counts its steps from 1, and neither a clock nor a copy keeps the times of folders.
        paths = (self.path / "checkpoints").glob("[!.]*-step-*")
        return sorted((path for path in paths if path.is_dir() and not path.is_symlink()), key=_number, reverse=True)

    def remove_leftovers(self) -> None:
        """Remove what a process that was killed was writing. Nobody else may be at work in the folder."""
        for left in (*self.path.glob(".*.tmp"), *self.path.glob("c*/.*.tmp")):
            if left.is_dir():
                shutil.rmtree(left)
            else:
                left.unlink()

    def save_targets(self, stage: str, examples: Sequence[Example], targets: Targets) -> None:
        """Write how many visits of each example took each target to ``targets/STAGE.jsonl``.

        Nothing is written where the first target is always taken.
        """
        if self.is_writer and targets.visits():
            own = zip(examples, targets.visits_of_each(), strict=True)
            with self.writing("the targets"):
                path = self.path / "targets" / f"{_file_name(stage)}.jsonl"
                write_jsonl(path, ({"id": example.id, "visits": [*counts]} for example, counts in own))

    def save_chains(self, stage: str, chains: Chains) -> None:
        """Write ``chains/STAGE.safetensors``, where the chains are at a stage's end; nothing where there are none."""
        if self.is_writer and chains.has_started:
            path = self.path / "chains" / f"{_file_name(stage)}.safetensors"
            with self.writing("the chains"), atomic_file(path) as temporary:
                save_file(chains.state(), temporary)

    def save_model(self, model: RagModel, complete: Callable[[Path], None] | None = None) -> None:
        """Write ``model/``, the result of the run; ``complete`` adds to the folder before it appears there."""
        with gather_model(model):
            if self.is_writer:
                with self.writing("the model"), atomic_directory(self.path / "model") as temporary:
                    model.save(temporary)
                    if complete is not None:
                        complete(temporary)

    @contextmanager
    def writing(self, what: str) -> Iterator[None]:
        """Raise `UserError`, with the way to go on, where the block cannot write ``what`` to the disk."""
        try:
            yield
        except Exception as error:
            # For a full disk safetensors has an error of its own, and tokenizers raise an Exception of no kind.
            if not isinstance(error, (OSError, SafetensorError)) and type(error) is not Exception:
                raise
            advice = advise_on_writing(error) or "make room there"
            then = (
                "go on from the last checkpoint" if self.checkpoints() else "begin anew, as there is no checkpoint yet"
            )
            raise UserError(
                f"{what} could not be written to {self.path} ({error}); {advice}, then {then}: "
                f"retrograd train --resume {shlex.quote(str(self.path))}"
            ) from None


def _file_name(stage: str) -> str:
    return stage.replace(" ", "-")


def _number(checkpoint: Path) -> int:
    """Return a checkpoint's number, counted from 1; 0 for one of a version that did not number them."""
    number = checkpoint.name.partition("-")[0]
    return int(number) if number.isdecimal() else 0


def _finite_numbers(table: JsonValue) -> dict[str, float]:
    values = {name: finite_number(value) for name, value in table.items()} if isinstance(table, dict) else {}
    return {name: value for name, value in values.items() if value is not None}


def _finite_or_none(value: int | float) -> int | float | None:
    return value if math.isfinite(value) else None
