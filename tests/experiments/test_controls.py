"""Tests of the controls of every recipe: what each changes, that nothing else differs, and which are left out."""

from __future__ import annotations

from dataclasses import replace

import pytest

from retrograd.experiments.controls import (
    CLOSED_BOOK,
    CONTROLS,
    FROZEN,
    ORACLE,
    RANDOM,
    frozen_retriever,
)
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.setting_changes import list_setting_changes
from retrograd.experiments.stage_description import trains_retriever
from retrograd.objectives import (
    Distillation,
    FrozenRetriever,
    JointStochasticApproximation,
    NoRetrieval,
    RelaxedTopK,
    TopKMarginal,
)
from retrograd.recipes import RECIPES
from retrograd.studies.study import make_controls
from retrograd.types import UserError

READING = [name for name, recipe in RECIPES.items() if recipe().training.passages > 0]


def changed(experiment: Experiment, control: Experiment) -> dict[str, object]:
    return {one.name: one.control for one in list_setting_changes(experiment, control)}


@pytest.mark.parametrize("name", READING)
def test_a_control_changes_what_it_is_about_and_nothing_of_the_budget(name: str) -> None:
    experiment = RECIPES[name]()
    controls, left_out = make_controls(experiment)
    assert {*controls, *left_out} == {*CONTROLS}
    steps = experiment.training.epochs + experiment.second_stage.epochs
    for control in controls.values():
        assert (control.data, control.seed, control.warm_start, control.masking) == (
            experiment.data,
            experiment.seed,
            experiment.warm_start,
            experiment.masking,
        )
        assert replace(control.generator, fusion=False) == replace(experiment.generator, fusion=False)
        for setting in ("batch_size", "micro_batch", "generator_learning_rate", "schedule", "warmup", "targets"):
            assert vars(control.training)[setting] == vars(experiment.training)[setting]
        assert control.training.epochs + control.second_stage.epochs == steps
        assert not trains_retriever(control)
    assert isinstance(controls[CLOSED_BOOK].objective, NoRetrieval)
    assert controls[CLOSED_BOOK].test_passages == 0
    assert [controls[one].retriever.search for one in (RANDOM, ORACLE)] == ["random", "oracle"]
    for control in (one for kind, one in controls.items() if kind != CLOSED_BOOK):
        assert control.test_passages == experiment.test_passages
        assert control.manner == experiment.manner
        assert control.selection == experiment.selection


def test_the_differences_are_few() -> None:
    experiment = RECIPES["semeval-joint"]()
    controls, _ = make_controls(experiment)
    reader = {"objective.kind": "FrozenRetriever", "objective.form": "marginal", "retriever.trained": "none"}
    assert changed(experiment, controls[FROZEN]) == reader
    assert changed(experiment, controls[RANDOM]) == reader | {"retriever.search": "random"}
    assert changed(experiment, controls[ORACLE]) == reader | {"retriever.search": "oracle"}
    closed = {"objective.kind": "NoRetrieval", "training.passages": 0, "retriever.trained": "none"}
    assert changed(experiment, controls[CLOSED_BOOK]) == closed
    etrag = RECIPES["etrag-semeval-10"]()
    controls, _ = make_controls(etrag)
    assert changed(etrag, controls[FROZEN]) == {"retriever.trained": "none"}
    assert changed(etrag, controls[ORACLE])["training.distraction"] == 0.0  # no wrong neighbours beside the answer's
    published = RECIPES["etrag-semeval-10-published"]()
    pooled = make_controls(published)[0][ORACLE]
    assert pooled.training.passages == 16 + 31  # as many candidates as the pool that it replaces
    assert pooled.test_passages == published.test_passages


@pytest.mark.parametrize(
    ("objective", "expected"),
    [
        (JointStochasticApproximation(), FrozenRetriever()),
        (Distillation(), FrozenRetriever("together")),
        (Distillation(reader="marginal"), FrozenRetriever()),
        (TopKMarginal(form="token"), TopKMarginal(form="token")),
        (RelaxedTopK(), RelaxedTopK()),
    ],
)
def test_the_generator_learns_as_in_the_experiment(objective: object, expected: object) -> None:
    experiment = Experiment().with_settings(["retriever.posterior=true"])
    made = replace(experiment, objective=objective)  # pyright: ignore[reportArgumentType]
    assert frozen_retriever(made).objective == expected


def test_a_second_stage_becomes_epochs_of_the_closed_book() -> None:
    settings = ["second_stage.epochs=2", "training.epochs=3", "generator.fusion=true", "training.distraction=0.2"]
    experiment = Experiment().with_settings(settings)
    closed = make_controls(experiment)[0][CLOSED_BOOK]
    assert (closed.training.epochs, closed.second_stage.epochs) == (5, 0)
    assert make_controls(experiment)[0][FROZEN].manner == experiment.manner
    settings = ["objective.kind=Distillation", "objective.target=loop_kl_target_prior", "objective.reader=marginal"]
    leave_one_out = Experiment().with_settings([*settings, "generator.fusion=true"])
    assert not make_controls(leave_one_out)[0][FROZEN].generator.fusion  # nothing is left that reads together


def test_what_says_nothing_is_left_out_or_refused() -> None:
    _, left_out = make_controls(RECIPES["semeval-frozen"]())
    assert left_out == {FROZEN: "the experiment is this control itself"}
    marginal = RECIPES["semeval-joint"]().with_settings(["retriever.trained=none"])
    assert make_controls(marginal)[1] == {FROZEN: "the experiment does not train its retriever either"}
    words = marginal.with_settings(["retriever.search=bm25"])
    controls, left_out = make_controls(words)
    assert [*left_out] == [FROZEN]
    assert controls[RANDOM].retriever.search == "random"
    controls, left_out = make_controls(CONTROLS[RANDOM](RECIPES["semeval-joint"]()))
    assert [*controls] == [CLOSED_BOOK, FROZEN, ORACLE]
    assert [*make_controls(CONTROLS[ORACLE](RECIPES["semeval-joint"]()))[1]] == [ORACLE]
    with pytest.raises(UserError, match="semeval-no-retrieval reads no passages: it is itself the closed book"):
        make_controls(RECIPES["semeval-no-retrieval"]())
    with pytest.raises(UserError, match=r"training\.generator_learning_rate is 0: the generator of .* does not learn"):
        make_controls(RECIPES["semeval-joint"]().with_settings(["training.generator_learning_rate=0"]))
    with pytest.raises(UserError, match="Distillation as set trains the retriever alone: the generator of"):
        make_controls(Experiment(objective=Distillation(reader="none")))
