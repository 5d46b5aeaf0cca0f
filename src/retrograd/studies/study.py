"""A study on disk: an experiment and its controls, over seeds, each an ordinary run; planned, trained, gone on with.

``study.json`` is the plan: the seeds, every system with all of its settings, in which of them it differs from the
experiment, and which controls are left out, and why. The runs lie beside it, ``experiment-seed0``,
``closed-book-seed0`` and so on. ``evidence.json`` and ``evidence.txt`` (`retrograd.studies.verdict`) come last.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from retrograd.experiments.controls import CONTROLS, FROZEN
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import require_enough_passages, resume_run, run_experiment
from retrograd.experiments.setting_changes import SettingChange, list_setting_changes
from retrograd.experiments.stage_description import trains_generator, trains_retriever
from retrograd.recipes import find_recipe
from retrograd.training.run.interrupts import Interrupts
from retrograd.training.run.run_directory import RunDirectory
from retrograd.training.tracking.tracker import Tracker
from retrograd.types import UserError
from retrograd.util.files import lock_folder
from retrograd.util.progress import say
from retrograd.util.text_files import read_json, write_json

__all__ = ["EXPERIMENT", "PlannedRun", "Study", "Watch", "is_study", "make_controls", "seeds_of"]

EXPERIMENT = "experiment"
"""The name of the experiment itself among the systems of a study."""

Watch = Callable[[Path], Mapping[str, Tracker]]
"""From the folder of a run to the trackers that watch it, by name."""

_PLAN = "study.json"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study: which system (`EXPERIMENT` or a control's name), and where it is or will be."""

    system: str
    experiment: Experiment
    path: Path

    @property
    def folder(self) -> RunDirectory:
        """Return the run's folder, which may not exist yet."""
        return RunDirectory(self.path)

    def require_own(self) -> None:
        """Raise `UserError` where another experiment was trained in its place."""
        if Experiment.load(self.folder.experiment) != self.experiment:
            raise UserError(
                f"{self.path} is not the {self.system} of this study: its experiment.toml has other settings; put it "
                f"back as it was, or move the folder away to have it trained anew"
            )


@dataclass(frozen=True)
class Study:
    """Systems by name, the experiment first, to be trained with each of the ``seeds`` in the folder ``path``.

    ``left_out`` are the controls that say nothing about the experiment, and why.
    """

    path: Path
    systems: Mapping[str, Experiment]
    seeds: tuple[int, ...]
    left_out: Mapping[str, str]

    @classmethod
    def begin(cls, experiment: Experiment, seeds: Sequence[int], path: Path) -> Study:
        """Create a new folder with the plan.

        Raises `UserError`, before anything is written, if something is there, and where the experiment or one of its
        controls cannot run or cannot be compared.
        """
        RunDirectory.require_free(path)
        resolved = experiment.from_root()
        controls, left_out = make_controls(resolved)
        study = cls(path, {EXPERIMENT: resolved} | controls, tuple(seeds), left_out)
        study._require_comparable()
        path.mkdir(parents=True, exist_ok=True)
        plan = {
            "format": 1,
            "seeds": study.seeds,
            "systems": {name: system.to_mapping() for name, system in study.systems.items()},
            "changes": {name: [asdict(change) for change in study.changes(name)] for name in controls},
            "left_out": left_out,
        }
        write_json(path / _PLAN, plan)
        return study

    @classmethod
    def open(cls, path: Path) -> Study:
        """Open a folder that `begin` wrote.

        Raises `UserError` for a folder that is no study, and for a plan that is none.
        """
        if not is_study(path):
            raise UserError(f"{path} is no study; give a folder that `retrograd train --controls` wrote")
        match read_json(path / _PLAN):
            case {
                "seeds": [_, *_] as seeds,
                "systems": {"experiment": _, **_others} as systems,
                "left_out": {**left_out},
            } if all(type(seed) is int and seed >= 0 for seed in seeds) and systems.keys() <= {EXPERIMENT, *CONTROLS}:
                systems_read = {name: _experiment(value, f"{path / _PLAN}: {name}") for name, value in systems.items()}
                numbers = tuple(value for value in seeds if isinstance(value, int))
                return cls(path, systems_read, numbers, {name: str(why) for name, why in left_out.items()})
            case _:
                raise UserError(f"{path / _PLAN} is damaged; begin another study, in another folder")

    @property
    def runs(self) -> list[PlannedRun]:
        """Return the runs in the order in which they are trained: seed by seed."""
        return [
            PlannedRun(name, replace(system, seed=seed), self.path / f"{name.replace(' ', '-')}-seed{seed}")
            for seed in self.seeds
            for name, system in self.systems.items()
        ]

    def changes(self, system: str) -> list[SettingChange]:
        """Return the settings in which a system differs from the experiment."""
        return list_setting_changes(self.systems[EXPERIMENT], self.systems[system])

    def train(self, interrupts: Interrupts | None = None, watch: Watch | None = None) -> None:
        """Train every run that has not ended, one after the other; one that was stopped goes on from its checkpoint.

        ``watch`` gives the trackers of the run in a folder, besides those of the experiment.

        Raises as `run_experiment` and `resume_run` do, and `UserError` where another process is at work in the folder.
        """
        with lock_folder(self.path):
            self._announce()
            for number, run in enumerate(self.runs, 1):
                where = "has ended" if run.folder.has_ended else f"in {run.path}"
                say(f"run {number} of {len(self.runs)}: {run.system}, seed {run.experiment.seed}, {where}")
                _train(run, interrupts, {} if watch is None else watch(run.path))

    def require_ended(self) -> None:
        """Raise `UserError` where a run is missing, unfinished, or not this study's."""
        missing = [run.path.name for run in self.runs if not run.folder.has_ended]
        if missing:
            raise UserError(
                f"{len(missing)} of the {len(self.runs)} runs of {self.path} have not ended ({missing[0]} first); go "
                f"on with: retrograd train --resume {shlex.quote(str(self.path))}"
            )
        for run in self.runs:
            run.require_own()

    def _announce(self) -> None:
        finished = sum(run.folder.has_ended for run in self.runs)
        seeds = f"{len(self.seeds)} seed{'s' if len(self.seeds) > 1 else ''}"
        say(
            f"{len(self.systems)} systems with {seeds} each are {len(self.runs)} runs, one after the "
            f"other; each costs about what the experiment alone does"
            + (f"; {finished} have ended already" if finished else "")
        )
        for name in self.systems:
            changes = ", ".join(
                f"{change.name} = {_word(change.control)} (not {_word(change.run)})" for change in self.changes(name)
            )
            say(f"  {name}: {changes}" if changes else f"  {name}: {self.systems[name].name}")
        for name, why in self.left_out.items():
            say(f"  {name}: left out, {why}")

    def _require_comparable(self) -> None:
        """Raise `UserError` for faults that would only show after hours of training."""
        data = self.systems[EXPERIMENT].data
        first = data.load(self.seeds[0])
        if len(first.test) < 2:
            raise UserError(
                f"a study compares answers to the same test examples, and data.test has {len(first.test)}; give it a "
                f"file of at least 2, better hundreds"
            )
        for system in self.systems.values():
            require_enough_passages(system, first.base)
        if len(self.seeds) > 1 and first.test != data.load(self.seeds[1]).test:
            raise UserError(
                "data.test_count draws other test examples for every seed, and seeds are compared on the same ones; "
                "set data.seed = 0, or data.test_count = 0"
            )


def _train(run: PlannedRun, interrupts: Interrupts | None, trackers: Mapping[str, Tracker]) -> None:
    if not run.folder.experiment.exists():
        run.folder.remove_leftovers()  # of a process that was killed before there was a run to go on with
        run_experiment(run.experiment, run.path, interrupts, find_recipe(run.experiment.name), trackers)
        return
    run.require_own()
    if not run.folder.has_ended:
        resume_run(run.path, interrupts, trackers)


def is_study(path: Path) -> bool:
    """Return whether `Study.begin` wrote this folder."""
    return (path / _PLAN).exists()


def seeds_of(text: str, experiment: Experiment) -> tuple[int, ...]:
    """Return the seeds of ``0,1,2`` as numbers; "" is the experiment's own.

    Raises `UserError` for anything else, and one given twice.
    """
    parts = [part.strip() for part in text.split(",")] if text.strip() else [str(experiment.seed)]
    if not all(part.isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise UserError(f"--seeds {text}: expected distinct numbers with commas between, such as 0,1,2")
    return tuple(map(int, parts))


def _experiment(values: object, where: str) -> Experiment:
    return Experiment.from_mapping(values if isinstance(values, dict) else {}, where)


def _word(value: object) -> str:
    return "unset" if value is None else json.dumps(value)


def make_controls(experiment: Experiment) -> tuple[dict[str, Experiment], dict[str, str]]:
    """Return the controls that say something about an experiment, by name, and why others are left out.

    Raises `UserError` for one without any: it reads no passages, or its generator does not learn.
    """
    if experiment.training.passages == 0:
        raise UserError(
            f"{experiment.name} reads no passages: it is itself the closed book, and there is nothing to control; "
            f"give the experiment that it is compared with"
        )
    if not trains_generator(experiment):
        objective = f"{type(experiment.objective).__name__} as set trains the retriever alone"
        cause = "training.generator_learning_rate is 0" if experiment.objective.trains_generator else objective
        raise UserError(
            f"{cause}: the generator of {experiment.name} does not learn, and controls train nothing else; let it "
            f"learn, or train without --controls"
        )
    useful: dict[str, Experiment] = {}
    left_out: dict[str, str] = {}
    for name, control in CONTROLS.items():
        changed = control(experiment)
        if changed == experiment:
            left_out[name] = "the experiment is this control itself"
        elif name == FROZEN and not experiment.retriever.search_kind.is_control and not trains_retriever(experiment):
            left_out[name] = "the experiment does not train its retriever either"
        else:
            useful[name] = replace(changed, name=f"{experiment.name}-{name.replace(' ', '-')}")
    return useful, left_out
