"""Training and opening runs from Python: model objects and examples in, an ordinary run out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.data.example_files import ExampleSource
from retrograd.experiments.data.recorded import record_data
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run as open_folder
from retrograd.experiments.open import read_run_task
from retrograd.experiments.run import resume_run, train_and_score
from retrograd.experiments.tracking import require_trackers
from retrograd.experiments.training_config import TrainingConfig
from retrograd.objectives import Objective, default_objective
from retrograd.rag.model_settings import ModelSettings
from retrograd.rag.rag_model import RagModel
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.settings import TrackSettings
from retrograd.types import Example, UserError
from retrograd.util.files import atomic_directory

__all__ = ["Run", "open_run", "resume", "train"]

_DEFAULT_CONFIG = TrainingConfig()
_DEFAULT_OBJECTIVE = default_objective()


@dataclass(frozen=True)
class Run:
    """A finished run: its folder ``path``, its ``experiment`` and its trained ``model``.

    Example::

        finished = rg.open_run("runs/nq")
        print(finished.scores, len(finished.test_examples))
    """

    path: Path
    experiment: Experiment
    model: RagModel

    @property
    def scores(self) -> dict[str, float]:
        """The scores on the test data by name, in percent; none where the run had no test data."""
        return RunDirectory(self.path).all_scores()

    @property
    def train_examples(self) -> list[Example]:
        """The examples that the run was trained on. Raises `UserError` where files are gone or differ."""
        return self._data.train

    @property
    def test_examples(self) -> list[Example]:
        """The examples that the run was scored on. Raises `UserError` where files are gone or differ."""
        return self._data.test

    @cached_property
    def _data(self) -> Data:
        task = read_run_task(self.experiment, RunDirectory.open(self.path))
        return self.experiment.data.load(self.experiment.seed, task)


def open_run(path: str | Path) -> Run:
    """Open the folder of a finished run. An index that is missing is built anew, in memory.

    Raises `UserError` for a folder that is no run, and for a run that did not end.

    Example::

        finished = rg.open_run("runs/nq")
        print(finished.model.answer("what holds tea ?").text)
    """
    opened = open_folder(Path(path))
    return Run(Path(path), opened.experiment, opened.model)


def resume(path: str | Path) -> Run:
    """Go on with a run that was stopped, from its newest checkpoint, and open it; on a CPU it ends as if it never had
    been stopped, bit for bit. A run that ended is opened as it is.

    Raises `UserError` for a folder that is no run, and where data, experiment or model have changed.

    Example::

        print(rg.resume("runs/nq").scores)
    """
    return open_run(resume_run(Path(path)).path)


def train(
    model: RagModel,
    examples: ExampleSource,
    *,
    out: str | Path,
    eval_examples: ExampleSource | None = None,
    objective: Objective = _DEFAULT_OBJECTIVE,
    config: TrainingConfig = _DEFAULT_CONFIG,
    track: Sequence[str] | TrackSettings = (),
) -> Run:
    """Train a model, in place, on examples with targets; returns the run, which keeps everything in the folder ``out``.

    ``examples`` and ``eval_examples``, on which the run is scored, are lists of examples or of records, generators,
    Arrow tables, Hugging Face datasets, or files. The run is like that of an experiment: the commands, `open_run` and
    `resume` know it. ``track`` names the trackers that take its metrics and scores, too, such as ["tensorboard"], or is
    their settings. Afterwards the model reads passages as the ``objective`` trained it to.

    Raises `UserError` for a folder with something in it, an objective that needs a posterior retriever which the model
    lacks, a model that was not made by `RagModel.from_pretrained`, a task that no settings describe, and a tracker that
    is not installed.

    Example::

        examples = [{"question": "what holds tea ?", "answers": ["cup"]}]
        trained = rg.train(model, examples, out="runs/mine", config=rg.TrainingConfig(epochs=1, passages=2))
        print(trained.path, trained.scores)
    """
    folder = RunDirectory(Path(out))
    RunDirectory.require_free(folder.path, prepared=True)
    settings = _settings_of(model, objective)
    names = (track,) if isinstance(track, str) else track
    trackers = names if isinstance(names, TrackSettings) else TrackSettings(tuple(names))
    require_trackers(trackers)
    recorded = record_data(model.task, model.base, examples, eval_examples, folder.data.resolve())
    experiment = Experiment(
        name=folder.path.resolve().name,
        seed=config.seed,
        data=recorded.settings,
        retriever=settings.retriever,
        index=model.index_source.settings,
        generator=settings.generator,
        soft_prompt=settings.soft_prompt,
        objective=objective,
        warm_start=config.warm_start(len(model.base)),
        training=config.training(model.precision),
        track=trackers,
    ).from_root()
    data = experiment.data.load(experiment.seed)
    recorded.check(data.task, data.base)
    with atomic_directory(folder.start) as temporary:
        model.save(temporary)
    model.use_answering(derive_model_settings(experiment).answering)
    train_and_score(experiment, data, folder.path, model=model)
    return Run(folder.path, experiment, model)


def _settings_of(model: RagModel, objective: Objective) -> ModelSettings:
    if model.settings is None:
        raise UserError(
            "the model was made of its parts, so a run cannot record what it was built from; make it with "
            "RagModel.from_pretrained"
        )
    if objective.needs_posterior and model.posterior is None:
        raise UserError(
            f"the objective {type(objective).__name__} needs a posterior retriever; make the model with "
            f"from_pretrained(…, posterior=True), or choose an objective that does without"
        )
    return model.settings
