"""Recipes: named experiments. A recipe is an entry of `RECIPES`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from retrograd.experiments.experiment import Experiment
from retrograd.recipes import etrag, jsa_rag, rag4re, smollm2
from retrograd.recipes.quickstart import semeval_frozen, semeval_joint, semeval_jsa, semeval_no_retrieval
from retrograd.types import UserError
from retrograd.util.guards import suggest_name

__all__ = ["RECIPES", "Recipe", "find_recipe", "open_experiment", "recipe"]


@dataclass(frozen=True)
class Recipe:
    """Named maker of an experiment, with the settings that its paper publishes and what no setting can express."""

    make: Callable[[], Experiment]
    summary: str
    published: Mapping[str, object] = field(default_factory=dict)
    deviations: tuple[str, ...] = ()

    def __call__(self) -> Experiment:
        """The experiment."""
        return self.make()


def _plain(make: Callable[[], Experiment]) -> Recipe:
    return Recipe(make, _summary(make))


def _etrag(make: Callable[[int], Experiment], percent: int) -> Recipe:
    summary = f"{_summary(make).removesuffix('.')} ({percent} % of the training data)."
    return Recipe(partial(make, percent), summary, etrag.PUBLISHED, etrag.DEVIATIONS)


def _rag4re(make: Callable[[str, str], Experiment], data: str, model: str) -> Recipe:
    training = "as published" if make is rag4re.published else "retriever and generator trained as one"
    language_model = rag4re.MODELS[model]
    summary = f"RAG4RE on {rag4re.TITLES[data]} with {language_model.title}, {training}."
    deviations = (*rag4re.DEVIATIONS, *language_model.deviations)
    return Recipe(partial(make, data, model), summary, rag4re.known_settings(model), deviations)


def _jsa_rag(name: str) -> Recipe:
    summary = f"JSA-RAG on {jsa_rag.DATA[name].title} with BGE-large and Mistral-7B (LoRA), as published."
    return Recipe(partial(jsa_rag.published, name), summary, jsa_rag.PUBLISHED, jsa_rag.DEVIATIONS)


def _summary(make: Callable[..., Experiment]) -> str:
    return (make.__doc__ or "").strip().splitlines()[0]


_ALL = (
    *(_plain(make) for make in (semeval_joint, semeval_jsa, semeval_frozen, semeval_no_retrieval)),
    _plain(rag4re.semeval),
    _plain(jsa_rag.small_questions),
    _plain(jsa_rag.small_dialogue),
    *(_plain(make) for make in smollm2.ROWS),
    *(_etrag(make, n) for make in etrag.SEMEVAL for n in etrag.SEMEVAL_PERCENTAGES),
    *(_etrag(make, n) for make in etrag.TACRED for n in etrag.TACRED_PERCENTAGES),
    *(_rag4re(rag4re.improved, data, model) for data in rag4re.DATA for model in rag4re.MODELS),
    *(
        _rag4re(rag4re.published, data, name)
        for data in rag4re.DATA
        for name, model in rag4re.MODELS.items()
        if model.known
    ),
    *(_jsa_rag(name) for name in jsa_rag.DATA),
)

RECIPES: dict[str, Recipe] = {make().name: make for make in _ALL}


def recipe(name: str) -> Experiment:
    """Return the experiment of a recipe, by its name (``retrograd recipes`` lists them), or that of a ``.toml`` or
    ``.json`` file. Raises `UserError` with the nearest name.

    Example::

        print(rg.recipe("semeval-joint").training.passages)
    """
    return open_experiment(name)


def find_recipe(name: str) -> Experiment | None:
    """Return the experiment of the recipe of this name, None where there is none."""
    return RECIPES[name]() if name in RECIPES else None


def open_experiment(name: str) -> Experiment:
    """Return the experiment of a recipe, or of a ``.toml`` or ``.json`` file.

    Raises `UserError` with the nearest name.
    """
    if name in RECIPES:
        return RECIPES[name]()
    if name.endswith((".toml", ".json")):
        return Experiment.load(Path(name))
    if Path(name).is_file():
        raise UserError(f"{name} is a file, but no experiment: its name must end in .toml or .json")
    if (Path(name) / "experiment.toml").is_file():
        raise UserError(f"{name} is a run's folder; its experiment is {Path(name) / 'experiment.toml'}")
    if Path(name).name != name:
        raise UserError(f"{name} does not exist; give a run's folder, a .toml or .json file, or a recipe's name")
    raise UserError(f"no recipe {name!r}; {suggest_name(name, RECIPES)} A file must end in .toml or .json")
