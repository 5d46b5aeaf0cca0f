"""Recipes: functions that return an `Experiment`. A recipe is a line in `RECIPES`."""

from collections.abc import Callable
from pathlib import Path

from retrograd.recipes.experiment import Experiment
from retrograd.recipes.quickstart import semeval_frozen, semeval_joint, semeval_jsa, semeval_no_retrieval
from retrograd.suggestions import advice
from retrograd.types import UserError

__all__ = ["RECIPES", "named_experiment"]

RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe().name: recipe for recipe in (semeval_joint, semeval_jsa, semeval_frozen, semeval_no_retrieval)
}


def named_experiment(name: str) -> Experiment:
    """The experiment of a recipe, or of a ``.toml`` or ``.json`` file. Raises `UserError` with the nearest name."""
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".toml", ".json")):
        return Experiment.load(Path(name))
    raise UserError(f"no recipe {name!r}; {advice(name, RECIPES)} A file must end in .toml or .json")
