"""Rules between the sections of an experiment: each has an example that it refuses, and says what to set."""

from __future__ import annotations

import re

import pytest

from retrograd.experiments.build import derive_model_settings
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.rules import RULES
from retrograd.objectives import StochasticTopK
from retrograd.recipes import RECIPES
from retrograd.types import UserError

JSA = ("retriever.posterior=true", "objective.kind=JointStochasticApproximation")
BACKGROUND = "training.refresh=background"
UNTRAINED = ("retriever.trained=none", "retriever.posterior=false")

REFUSED: dict[str, tuple[str, ...]] = {
    "_check_posterior": ("objective.kind=WakeSleep",),
    "_check_roles_in_background": ("retriever.pooling=roles", BACKGROUND),
    "_check_words_in_background": ("retriever.lexical_dimensions=8", BACKGROUND),
    "_check_own_passages_in_background": (*JSA, "retriever.posterior_passages=own", BACKGROUND),
    "_check_engine_follows": (
        "retriever.trained=both", "index.kind=faiss", "training.refresh=rolling", "training.refresh_share=0.1",
    ),
    "_check_words_in_soft_prompt": (
        "objective.kind=RelaxedTopK", "soft_prompt.form=improved", "retriever.lexical_dimensions=8",
    ),
    "_check_distraction": (*JSA, "training.distraction=0.1"),
    "_check_tail": ("training.tail=1", "training.tail_posterior_share=0.5"),
    "_check_vectors": (*UNTRAINED, "retriever.search=bm25", "training.pool=true"),
    "_check_other_rows": (*UNTRAINED, "retriever.search=oracle", "training.tail=1"),
    "_check_explorers": ("training.explorers=1",),
    "_check_passages": ("training.passages=0",),
    "_check_prior_only": ("training.prior_only=0.1",),
    "_check_second_stage": ("objective.kind=RelaxedTopK", "second_stage.epochs=1"),
    "_check_reading": ("objective.kind=RelaxedTopK", "evaluation.reading=together"),
    "_check_fusion": ("generator.fusion=true",),
    "_check_fsdp": (
        "objective.kind=Distillation", "objective.target=loop_kl_target_prior", "generator.fsdp=true",
    ),
    "_check_soft_prompt": ("soft_prompt.form=improved",),
    "_check_calibrate": ("data.kind=questions", "evaluation.calibrate=true"),
    "_check_dev": ("training.evaluate_every=5",),
}  # fmt: skip


def message_of(assignments: tuple[str, ...]) -> str:
    with pytest.raises(UserError) as refusal:
        Experiment().with_settings(assignments)
    return str(refusal.value)


def test_every_rule_refuses_its_example_with_a_message_of_its_own() -> None:
    assert [rule.__name__ for rule in RULES] == [*REFUSED]
    assert len({message_of(assignments) for assignments in REFUSED.values()}) == len(RULES)


@pytest.mark.parametrize("name", REFUSED)
def test_a_message_says_what_to_set(name: str) -> None:
    assert re.search(r"\bset (it|[a-z_]+\.[a-z_]+)", message_of(REFUSED[name]))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_meets_every_rule(name: str) -> None:
    assert [rule(RECIPES[name]()) for rule in RULES] == [None] * len(RULES)


@pytest.mark.parametrize(
    "assignments",
    [
        ["second_stage.epochs=1"],
        ["evaluation.reading=singly"],
        ["evaluation.reading=together"],
        ["retriever.search=bm25", "retriever.trained=none", "evaluation.reading=singly"],
    ],
    ids=repr,
)
def test_one_passage_a_slot_may_be_read_as_text(assignments: list[str]) -> None:
    """Runs with these settings exist: they open, and read text where a setting says so."""
    experiment = Experiment().with_settings(["objective.kind=StochasticTopK", *assignments])
    assert experiment.selection is None
    assert experiment.prompt_passages > 0
    assert derive_model_settings(experiment).answering.selection is None


def test_sampled_slots_are_answered_from_the_best() -> None:
    experiment = Experiment().with_settings(["objective.kind=StochasticTopK", "objective.slots=3"])
    assert derive_model_settings(experiment).answering.selection == StochasticTopK(slots=3).selection
    assert experiment.with_settings(["retriever.search=bm25", "retriever.trained=none"]).selection is not None
