"""ETRAG's recipes: what is published is what the paper says, and `show` marks every setting that is not."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from tests.sign_models import SignModels
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.commands.show import annotate
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.open import open_run
from retrograd.experiments.run import require_enough_passages
from retrograd.index.knowledge_base import KnowledgeBase
from retrograd.recipes import RECIPES
from retrograd.recipes.etrag import (
    DEVIATIONS,
    PUBLISHED,
    SEMEVAL_PERCENTAGES,
    TACRED_PERCENTAGES,
    tacred,
    tacred_published,
)
from retrograd.types import Passage
from retrograd.util.text_files import read_jsonl

TACRED_LIKE = Path(__file__).parents[2] / "examples" / "tacred_like"


def shown(recipe: str, *arguments: str) -> str:
    result = CliRunner().invoke(app, ["show", recipe, *arguments])
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("percent", TACRED_PERCENTAGES)
def test_the_regimes_are_there_in_both_forms_and_fit_their_data(percent: int) -> None:
    train, dev = TACRED_PERCENTAGES[percent]
    base = KnowledgeBase.from_passages(Passage(str(i), "born in", f"@ a{i} @ # b #") for i in range(train))
    for name in (f"etrag-tacred-{percent}", f"etrag-tacred-{percent}-published"):
        experiment = RECIPES[name]()
        assert (experiment.name, experiment.data.labels, experiment.data.format) == (name, "tacred", "tacred")
        drawn = (experiment.data.train_count or train, experiment.data.dev_count or dev)
        assert drawn == (train, dev)
        assert experiment.data.seed == 0  # runs with several seeds share their data
        require_enough_passages(experiment, base)
        # A warm start over the best of a trained passage tower would encode all of these with gradient.
        assert experiment.warm_start.passages == 0


def test_the_published_form_has_every_known_setting_but_one() -> None:
    """Nothing can be left out of the exclusion; on SemEval models and targets are others besides."""
    values = tacred_published(10).to_mapping()
    for name, value in PUBLISHED.items():
        section, setting = name.split(".")
        table = values[section]
        assert isinstance(table, dict)
        assert (table[setting] == value) == (name != "data.exclude"), name


def test_show_marks_what_differs_and_nothing_else() -> None:
    lines = shown("etrag-tacred-10").splitlines()
    assert 'key_style = "split"  # published: "published"' in lines
    assert "temperature = 0.05  # published: 1.0" in lines
    assert 'model = "roberta-base"' in lines
    assert "epochs = 10" in lines  # the paper says no number of them
    assert f"#   {DEVIATIONS[0]}" in lines
    marked = [line for line in shown("etrag-tacred-10-published").splitlines() if "# published" in line]
    assert marked == ['exclude = "pair"  # published: "nothing"']
    assert "slots = 10" in shown("etrag-tacred-10", "--set", "objective.slots=10").splitlines()
    assert shown("semeval-joint") == RECIPES["semeval-joint"]().to_toml()


def test_the_settings_of_another_objective_are_not_compared() -> None:
    text = shown("etrag-semeval-10", "--set", "objective.kind=TopKMarginal")
    assert 'normaliser = "full"' in text.splitlines()
    assert 'kind = "TopKMarginal"  # published: "RelaxedTopK"' in text.splitlines()


@pytest.mark.parametrize("name", [f"etrag-semeval-{n}" for n in SEMEVAL_PERCENTAGES] + ["etrag-tacred-1-published"])
def test_what_is_shown_can_be_trained(name: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(shown(name), encoding="utf-8")
    assert Experiment.load(path) == RECIPES[name]()


def test_a_list_differs_as_a_list() -> None:
    changed = tacred(1).with_settings(['generator.lora_modules=["q"]'])
    text = annotate(changed, PUBLISHED, ())
    assert "lora_modules = [  # published: q, k, v, o, wi_0, wi_1, wo" in text
    assert tomllib.loads(text)["generator"]["lora_modules"] == ["q"]


@pytest.mark.slow
@pytest.mark.parametrize("form", ["", "-published"])
def test_tacred_recipes_run_end_to_end_on_tiny_models(
    form: str, sign_models: SignModels, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On sentences of our own in TACRED's format: fewer, with smaller models, everything else as in the recipe."""
    run = tmp_path / "run"
    files = {f"data.{part}": TACRED_LIKE / f"{part}.json" for part in ("train", "dev", "test")}
    smaller = {
        **files,
        "data.train_count": 0,
        "data.dev_count": 0,
        "retriever.model": sign_models.encoder,
        "generator.model": sign_models.generator,
        "generator.lora_rank": 2,
        "generator.lora_modules": '["q", "v"]',
        "training.epochs": 1,
        "training.precision": "fp32",
        "training.batch_size": 16,
        "training.passages": 4,
        "training.explorers": 4,
        "objective.best": 0,
        "evaluation.passages": 8,
    }
    settings = [word for name, value in smaller.items() for word in ("--set", f"{name}={value}")]
    result = CliRunner().invoke(app, ["train", f"etrag-tacred-10{form}", "--out", str(run), *settings])
    assert result.exit_code == 0, result.output
    assert "micro_f1" in result.output
    assert (run / "model" / "generator" / "soft_prompt.safetensors").exists()
    assert (run / "model" / "generator" / "adapter_model.safetensors").exists()
    assert (run / "calibration.json").exists() == (form == "")
    opened = open_run(run)
    examples = opened.data.test
    again = opened.model.predict(examples, 8, "tree")
    told = [line["answer"] for _, line in read_jsonl(run / "predictions.jsonl")]
    assert [prediction.answer for prediction in again] == told
