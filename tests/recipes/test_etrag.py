"""ETRAG's recipes: what is published is what the paper says, and `show` marks every setting that is not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from retrograd.cli import app
from retrograd.recipes import RECIPES
from retrograd.recipes.etrag import SEMEVAL_PERCENTAGES, TACRED_PERCENTAGES, tacred, tacred_published
from retrograd.recipes.experiment import Experiment
from retrograd.recipes.show import annotated


def shown(recipe: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", recipe, *arguments])
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("percent", TACRED_PERCENTAGES)
def test_the_regimes_are_there_in_both_forms(percent: int) -> None:
    for name in (f"etrag-tacred-{percent}", f"etrag-tacred-{percent}-published"):
        experiment = RECIPES[name]()
        assert (experiment.name, experiment.data.labels, experiment.data.format) == (name, "tacred", "tacred")
        assert experiment.data.train_share == (percent / 100 if percent < 100 else 0.0)
        assert experiment.data.seed == 0  # runs with several seeds share their data


def test_published_is_what_the_paper_says() -> None:
    experiment = tacred_published(10)
    assert experiment.to_mapping()["objective"] == {
        "kind": "RelaxedTopK",
        "slots": 10,
        "best": 0,
        "operator": "n3",
        "perplexity": 0.0,
        "vote_weight": 0.0,
    }
    assert (experiment.retriever.model, experiment.retriever.temperature) == ("roberta-base", 1.0)
    assert (experiment.generator.model, experiment.generator.lora_rank) == ("google/flan-t5-large", 32)
    assert experiment.training.passages + experiment.training.explorers == 32


def test_show_marks_what_differs_and_nothing_else() -> None:
    lines = shown("etrag-tacred-10").splitlines()
    assert 'key_style = "split"  # published: "published"' in lines
    assert "temperature = 0.05  # published: 1.0" in lines
    assert 'model = "roberta-base"' in lines
    assert "#   the database holds every training instance; the paper's at most 5,000" in lines
    assert "published:" not in shown("etrag-tacred-10-published").replace("As published", "")
    assert "slots = 10" in shown("etrag-tacred-10", "--set", "objective.slots=10").splitlines()
    assert shown("semeval-joint") == RECIPES["semeval-joint"]().to_toml()


def test_another_objective_has_settings_of_its_own() -> None:
    text = shown("etrag-semeval-10", "--set", "objective.kind=TopKMarginal", "--set", "soft_prompt.form=words")
    assert 'normaliser = "full"  # no setting of the published objective' in text.splitlines()
    assert 'kind = "TopKMarginal"  # published: "RelaxedTopK"' in text.splitlines()


@pytest.mark.parametrize("name", [f"etrag-semeval-{n}" for n in SEMEVAL_PERCENTAGES] + ["etrag-tacred-1-published"])
def test_what_is_shown_can_be_trained(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(shown(name), encoding="utf-8")
    assert Experiment.load(path) == RECIPES[name]()


def test_a_list_differs_as_a_list() -> None:
    changed = tacred(1).with_settings(['generator.lora_modules=["q"]'])
    text = annotated(changed, tacred_published(1), ())
    assert "lora_modules = [  # published: q, k, v, o, wi_0, wi_1, wo" in text
    assert tomllib.loads(text)["generator"]["lora_modules"] == ["q"]
