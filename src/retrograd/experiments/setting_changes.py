"""The settings in which two experiments differ, and a run from its recipe: one rule for cards, pages and studies."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from retrograd.experiments.experiment import Experiment
from retrograd.experiments.public_settings import settings_for_others
from retrograd.experiments.text import flatten_settings
from retrograd.training.run.run_directory import RunDirectory
from retrograd.types import UserError

__all__ = ["SettingChange", "compare_with_recipe", "list_changes_for_others", "list_setting_changes"]


@dataclass(frozen=True)
class SettingChange:
    """A setting, ``section.name``, with its value in the run and in the control; None where one has no such setting."""

    name: str
    run: object
    control: object


def list_setting_changes(run: Experiment, control: Experiment) -> list[SettingChange]:
    """Return the settings that differ, but for the recipe's name and its trackers; of another objective's settings,
    those that the control has.
    """
    run_values, control_values = (flatten_settings(experiment.to_mapping()) for experiment in (run, control))
    names = [
        *control_values,
        *(name for name in run_values if name not in control_values and not name.startswith("objective.")),
    ]
    return [
        SettingChange(name, run_values.get(name), control_values.get(name))
        for name in names
        if name != "name" and not name.startswith("track.") and run_values.get(name) != control_values.get(name)
    ]


def list_changes_for_others(run: Experiment, control: Experiment) -> list[SettingChange]:
    """Return the settings that differ as others may read them: no folder of this machine is named.

    Of two files with the same name the control's is called another one.
    """
    shown = settings_for_others(run), settings_for_others(control)
    return [_show(change.name, *shown) for change in list_setting_changes(run, control)]


def compare_with_recipe(run: RunDirectory, experiment: Experiment) -> tuple[str | None, list[SettingChange]]:
    """Return the name of the recipe that a run began from, as it was then, and the run's settings that differ from it,
    as others may read them.

    Without a recipe, and for one with settings that are no more, the name is None and the settings are compared with
    the defaults for the same kind of data.
    """
    recipe = _read_recipe(run)
    usual = recipe or replace(Experiment(), data=type(experiment.data)())
    own = flatten_settings(experiment.to_mapping())
    changes = list_changes_for_others(usual.from_root(), experiment.from_root())
    return (
        None if recipe is None else recipe.name,
        [SettingChange(one.name, one.control, one.run) for one in changes if one.name in own],
    )


def _show(name: str, run: Mapping[str, object], control: Mapping[str, object]) -> SettingChange:
    left, right = run.get(name), control.get(name)
    return SettingChange(name, left, f"{right} (another one)" if left == right else right)


def _read_recipe(run: RunDirectory) -> Experiment | None:
    """Return the recipe that a run began from; None without one, and for one with settings that are no more."""
    try:
        return Experiment.load(run.recipe) if run.recipe.exists() else None
    except UserError:
        return None
