"""Experiments go to text and back, and errors name the key, the nearest key and the place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from retrograd.experiments.build import build_model
from retrograd.experiments.data.source import Data
from retrograd.experiments.experiment import Experiment, RetrieverSettings, TrainingSettings
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.objectives import OBJECTIVES, JointStochasticApproximation, TopKMarginal, WakeSleep
from retrograd.rag.answers.manner import Manner
from retrograd.recipes import RECIPES
from retrograd.tasks.relations.extraction import RelationExtraction
from retrograd.training.refresh.policies import (
    EverySteps,
    InBackground,
    Never,
    RefreshPolicy,
    RetrievedLately,
    Rolling,
    WhenDrifted,
)
from retrograd.types import Passage, UserError


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_survives_toml_and_json(name: str, tmp_path: Path) -> None:
    experiment = RECIPES[name]()
    assert experiment.name == name
    for suffix, text in ((".toml", experiment.to_toml()), (".json", experiment.to_json())):
        path = tmp_path / f"experiment{suffix}"
        path.write_text(text, encoding="utf-8")
        assert Experiment.load(path) == experiment


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_every_objective_can_be_named_in_a_file(kind: type, tmp_path: Path) -> None:
    path = tmp_path / "experiment.toml"
    path.write_text(f'[retriever]\nposterior = true\n[objective]\nkind = "{kind.__name__}"\n', encoding="utf-8")
    assert Experiment.load(path).objective == kind()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], 1),
        (["objective.kind=NoRetrieval", "training.passages=0"], 0),
        (["objective.kind=NoRetrieval", "training.passages=0", "evaluation.passages=5"], 1),
        (["objective.kind=FrozenRetriever", "objective.form=together", "generator.fusion=true"], 1),
        (
            ["objective.kind=FrozenRetriever", "objective.form=together", "training.epochs=0", "evaluation.passages=3"],
            3,
        ),
        (["evaluation.reading=together"], 10),
        (["evaluation.reading=together", "evaluation.passages=12"], 12),
        (["objective.kind=FrozenRetriever", "objective.form=together", "evaluation.passages=3"], 10),
        (["second_stage.epochs=1", "second_stage.passages=2", "second_stage.reading=together"], 2),
        (["second_stage.epochs=1", "second_stage.reading=together", "evaluation.passages=1"], 10),
    ],
)
def test_the_longest_prompt_of_any_stage_is_known(changes: list[str], expected: int) -> None:
    assert Experiment().with_settings(["training.passages=10", *changes]).prompt_passages == expected


def test_what_is_left_out_keeps_its_default(tmp_path: Path) -> None:
    path = tmp_path / "small.toml"
    path.write_text('name = "mine"\n[training]\nepochs = 7\n', encoding="utf-8")
    assert Experiment.load(path) == Experiment(name="mine", training=TrainingSettings(epochs=7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[training]\nepoch = 3\n", r"mine\.toml: training: unknown key 'epoch'; did you mean 'epochs'\?"),
        ("[trainings]\nepochs = 3\n", r"mine\.toml: unknown key 'trainings'; did you mean 'training'\?"),
        ('[training]\nepochs = "3"\n', r"training: epochs is '3'; expected a whole number"),
        ("[training]\nepochs = true\n", r"training: epochs is True; expected a whole number"),
        ('[retriever]\ntrained = "all"\n', r"trained is 'all'; expected one of 'both', 'query', 'none'"),
        ('[objective]\nkind = "TopK"\n', r"objective: no objective 'TopK'; did you mean 'TopKMarginal'\?"),
        ('[objective]\nform = "token"\n', r"objective: needs 'kind'"),
        ('[objective]\nkind = "TopKMarginal"\nfrom = "token"\n', r"unknown key 'from'; did you mean 'form'\?"),
        ('[objective]\nkind = "JointStochasticApproximation"\n', r"set retriever\.posterior = true"),
        ("[training]\nepochs =\nclip = 1.0\n", r"mine\.toml: not valid TOML: .*line 2"),
        ("", r"mine\.toml is empty"),
    ],
)
def test_mistakes_are_named_with_their_place_and_remedy(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        Experiment.load(path)


def test_settings_change_one_place_and_keep_the_rest() -> None:
    start = RECIPES["semeval-joint"]()
    changed = start.with_settings(
        ["training.epochs=9", "retriever.model=some/folder", "objective.form=token", "seed=4"]
    )
    assert changed.training == TrainingSettings(**{**vars(start.training), "epochs": 9})
    assert changed.retriever == RetrieverSettings(**{**vars(start.retriever), "model": "some/folder"})
    assert changed.objective == TopKMarginal(form="token")
    assert changed.seed == 4
    assert changed.data == start.data


def test_the_objective_itself_can_be_exchanged() -> None:
    changed = RECIPES["semeval-joint"]().with_settings(
        ["retriever.posterior=true", 'objective={kind = "JointStochasticApproximation", sampler = "metropolis"}']
    )
    assert changed.objective == JointStochasticApproximation(sampler="metropolis")


def test_another_kind_of_objective_begins_with_its_own_defaults() -> None:
    changed = RECIPES["semeval-joint"]().with_settings(
        ["retriever.posterior=true", "objective.kind=WakeSleep", "objective.draws=9"]
    )
    assert changed.objective == WakeSleep(draws=9)
    with pytest.raises(UserError, match="did you mean 'WakeSleep'"):
        RECIPES["semeval-joint"]().with_settings(["objective.kind=WakeSleap"])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epochs", r"expected section\.setting=value"),
        ("trainings.epochs=2", r"no section 'trainings'; did you mean 'training'\?"),
        ("training.epoch=2", r"unknown key 'epoch'; did you mean 'epochs'\?"),
        ("training.epochs=two", r"epochs is 'two'; expected a whole number"),
    ],
)
def test_wrong_assignments_say_so(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        RECIPES["semeval-joint"]().with_settings([assignment])


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("training.epochs=" + "[" * 5000, "epochs is .*expected a whole number"),
        (f"training.epochs={'9' * 5000}", "epochs is .*expected a whole number"),
        ("training.epochs=1\nname = 2", "epochs is .*expected a whole number"),
        ("name=\udcff", "not UTF-8"),
    ],
)
def test_assignments_that_are_no_values(assignment: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment().with_settings([assignment])


def test_json_and_toml_agree() -> None:
    experiment = RECIPES["semeval-jsa"]()
    assert Experiment.from_mapping(json.loads(experiment.to_json()), "here") == experiment


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["training.passages=-1"], "at least 0"),
        (["training.passages=0"], "learns from passages"),
        (["data.dev=builtin:semeval2010_task8"], "no development data"),
        (["training.evaluate_every=5"], "training.evaluate_every needs development data"),
        (["evaluation.calibrate=true"], "evaluation.calibrate needs development data"),
        (["training.distraction=1.0"], "distraction is 1; expected a share"),
        (
            ["training.distraction=0.1", "retriever.posterior=true", "objective.kind=WakeSleep"],
            "a posterior that knows",
        ),
        (
            ["training.distraction=0.1", "objective.kind=NoRetrieval", "training.passages=0"],
            "does not make; set it to 0",
        ),
        (["retriever.search=random"], 'set retriever.trained = "none"'),
        (
            ["generator.gradient_checkpointing=true", "generator.dropout=false"],
            "needs dropout: set generator.dropout = true or generator.gradient_checkpointing = false",
        ),
        (["generator.fsdp=true", "generator.fusion=true"], "generator.fsdp cannot read by fusion-in-decoder"),
        (
            ["generator.fsdp=true", "objective.kind=Distillation", "objective.target=loop_kl_target_prior"],
            "as many prompts on all processes",
        ),
        (["generator.fsdp=true", "generator.lora_rank=4", "generator.quantisation=nf4"], "spreads no 4-bit weights"),
    ],
)
def test_settings_that_cannot_run_together_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RECIPES["semeval-joint"]().with_settings(assignments)


@pytest.mark.parametrize(
    ("assignments", "policy"),
    [
        ([], EverySteps(20)),
        (["training.refresh_every=5"], EverySteps(5)),
        (["training.refresh_every=0"], EverySteps(0)),
        (["training.refresh=drift", "training.refresh_drift=0.02"], WhenDrifted(0.02, 20)),
        (["training.refresh=rolling", "training.refresh_share=0.1"], Rolling(0.1)),
        (["training.refresh=retrieved", "training.refresh_window=50"], RetrievedLately(20, 50)),
        (["training.refresh=background", "training.refresh_every=7"], InBackground(7)),
        (["training.refresh=never"], Never()),
    ],
)
def test_settings_name_each_refresh_policy(assignments: list[str], policy: RefreshPolicy) -> None:
    experiment = RECIPES["semeval-joint"]().with_settings(assignments)
    assert experiment.training.refresh_policy == policy
    assert Experiment.from_mapping(json.loads(experiment.to_json()), "here") == experiment


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["retriever.lexical_dimensions=6"], "lexical_dimensions is 6; expected a multiple of 4"),
        (["retriever.lexical_dimensions=-4"], "lexical_dimensions is -4"),
        (["retriever.lexical_weight=-0.5"], r"lexical_weight is -0\.5.*set it to 0 or more"),
        (
            ["retriever.lexical_dimensions=8", "retriever.search=bm25", "retriever.trained=none"],
            "has no vectors; set retriever.lexical_dimensions = 0",
        ),
        (["retriever.lexical_dimensions=8", "training.refresh=background"], "unknown to another process"),
        (
            ["retriever.posterior=true", "retriever.posterior_passages=own", "training.refresh=background"],
            'makes two vectors a passage, and another process makes one; set training.refresh = "every"',
        ),
        (
            ["retriever.lexical_dimensions=8", "objective.kind=RelaxedTopK", "soft_prompt.form=improved"],
            "maps the vectors of a model, not counts of words",
        ),
    ],
)
def test_hybrid_settings_that_do_not_fit_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RECIPES["semeval-joint"]().with_settings(assignments)


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["training.refresh=drift"], r'training: refresh = "drift" needs refresh_drift; set it to 0\.02'),
        (["training.refresh=rolling"], "needs refresh_share"),
        (["training.refresh=retrieved"], "needs refresh_window"),
        (["training.refresh_share=0.1"], r'refresh_share belongs to refresh = "rolling", but refresh is "every"'),
        (["training.refresh=never", "training.refresh_drift=0.1"], 'belongs to refresh = "drift"'),
        (["training.refresh=rolling", "training.refresh_share=2.0"], r"refresh_share is 2\.0; expected a share"),
        (["training.refresh=background", "training.refresh_every=0"], "refresh_every is 0"),
        (["training.refresh_every=-1"], "refresh_every is -1"),
        (["training.refresh=sometimes"], "expected one of 'every', 'drift'"),
        (["training.probe_passages=-1"], "probe_passages is -1"),
        (
            ["training.refresh=drift", "training.refresh_drift=0.1", "training.probe_passages=0"],
            "set probe_passages to 64",
        ),
    ],
)
def test_refresh_settings_that_do_not_fit_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RECIPES["semeval-joint"]().with_settings(assignments)


@pytest.mark.parametrize(
    ("assignments", "manner"),
    [
        ([], Manner()),
        (["objective.kind=FrozenRetriever", "objective.form=together"], Manner(reading="together")),
        (
            ["objective.kind=FrozenRetriever", "objective.form=together", "generator.fusion=true"],
            Manner(reading="fused"),
        ),
        (
            ["objective.kind=Distillation", "generator.fusion=true", "evaluation.reading=together"],
            Manner(reading="together"),
        ),
        (
            ["evaluation.reading=fused", "evaluation.beams=3", "evaluation.marginal=fast"],
            Manner(reading="fused", beams=3, marginal="fast"),
        ),
    ],
)
def test_a_trained_model_answers_as_the_settings_say(assignments: list[str], manner: Manner) -> None:
    start = ["objective.kind=TopKMarginal", "retriever.posterior=false"]
    experiment = Experiment().with_settings([*start, *assignments])
    assert experiment.manner == manner


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["generator.fusion=true"], r"generator\.fusion is for objectives that read passages together, and TopKMarg"),
        (["evaluation.beams=0"], r"evaluation\.beams is 0"),
        (["objective.kind=RelaxedTopK", "evaluation.reading=fused"], r'reading = "fused" .* RelaxedTopK reads them in'),
    ],
)
def test_manners_that_cannot_be_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment().with_settings(assignments)


def test_a_decoder_only_generator_is_refused_before_it_is_trained(tiny_encoder: Path, tiny_causal: Path) -> None:
    base = KnowledgeBase.from_passages([Passage("1", "cause", "rain caused the flood")])
    data = Data(RelationExtraction.semeval(), base, [], [], [], {})
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_causal}", "generator.max_input_tokens=64"]
    together = ["objective.kind=FrozenRetriever", "objective.form=together", "generator.fusion=true"]
    for assignments in (together, ["evaluation.reading=fused"]):
        with pytest.raises(UserError, match="decoder-only, and fusion-in-decoder needs an encoder"):
            build_model(Experiment().with_settings([*models, *assignments]), data, torch.Generator())
