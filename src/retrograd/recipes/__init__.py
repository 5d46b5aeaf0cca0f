"""Recipes: functions that return an `Experiment`. A recipe is a line in `RECIPES`."""

from collections.abc import Callable

from retrograd.recipes.experiment import Experiment
from retrograd.recipes.quickstart import semeval_frozen, semeval_joint, semeval_jsa, semeval_no_retrieval

__all__ = ["RECIPES"]

RECIPES: dict[str, Callable[[], Experiment]] = {
    recipe().name: recipe for recipe in (semeval_joint, semeval_jsa, semeval_frozen, semeval_no_retrieval)
}
