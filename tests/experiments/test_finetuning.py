"""Fine-tuning a language model with adapters, from the command line to plain peft; its settings and their limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from tests.sign_models import SignModels
from tests.tolerances import assert_equal_but_rounding, descent_tolerance, plain_descent
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.evaluation.records import prediction_record
from retrograd.experiments.build import build_model
from retrograd.experiments.experiment import (
    Experiment,
    GeneratorSettings,
    RelationData,
    RetrieverSettings,
    TrainingSettings,
    WarmStartSettings,
)
from retrograd.experiments.open import open_run
from retrograd.experiments.run import evaluate_experiment, run_experiment
from retrograd.experiments.stages import build_stages
from retrograd.models.loading.quantisation import Quantisation
from retrograd.types import UserError
from retrograd.util.text_files import read_jsonl

pytestmark = pytest.mark.slow

THINGS = (("cup", "holds"), ("box", "part of"), ("jar", "holds"), ("lid", "part of"))
RECORDS = [
    {
        "text": f"the {thing} and tea number {i} .",
        "head": [4, 4 + len(thing)],
        "tail": [len(thing) + 9, len(thing) + 12],
        "relation": label,
    }
    for i, (thing, label) in enumerate(THINGS * 2)
]
ADAPTED = {"lora_rank": 2, "lora_alpha": 8.0, "lora_dropout": 0.1, "lora_modules": ("q_proj", "v_proj", "up_proj")}

RATE, STEPS, NORM = 1e-2, 6, 1.0
"""One epoch of two batches and two epochs of two, under gradients clipped to `NORM`."""
TERMS, DEPTH = 4 * 2 * (160 + 16), 12
"""A gradient sums 4 queries x 2 passages x at most 176 tokens; a weight is within 12 matrix products of the loss."""
TOLERANCE = descent_tolerance(RATE, STEPS, NORM, TERMS, DEPTH)


@pytest.fixture
def experiment(sign_models: SignModels, sign_llama: Path, tmp_path: Path) -> Experiment:
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(record) + "\n" for record in RECORDS), encoding="utf-8")
    return Experiment(
        data=RelationData(train=str(data), test=str(data), labels="from_train"),
        retriever=RetrieverSettings(model=str(sign_models.encoder)),
        generator=GeneratorSettings(str(sign_llama), 160, 16, **ADAPTED),
        warm_start=WarmStartSettings(epochs=1, batch_size=4),
        training=TrainingSettings(epochs=2, batch_size=4, passages=2, generator_learning_rate=1e-2, precision="fp32"),
    )


def test_train_open_and_answer_as_the_run_did(experiment: Experiment, tmp_path: Path) -> None:
    path, run = tmp_path / "mine.toml", tmp_path / "run"
    path.write_text(experiment.to_toml(), encoding="utf-8")
    schedule = ["--set", 'training.schedule="cosine with restarts"', "--set", "training.restarts=1"]
    result = CliRunner().invoke(app, ["train", str(path), "--out", str(run), *schedule])
    assert result.exit_code == 0, result.output
    assert not (run / "model" / "generator" / "model.safetensors").exists()
    opened = open_run(run)
    again = evaluate_experiment(opened.experiment, opened.model, opened.data.test).predictions
    told = [line for _, line in read_jsonl(run / "predictions.jsonl")]
    assert [prediction_record(*pair) for pair in zip(again, opened.data.test, strict=True)] == told
    base = AutoModelForCausalLM.from_pretrained(experiment.generator.model)
    plain = PeftModel.from_pretrained(base, str(run / "model" / "generator")).eval()
    tokens = torch.arange(5, 100).view(5, 19)
    with torch.no_grad():
        assert_equal_but_rounding(plain(tokens).logits, opened.model.generator.model(tokens).logits)


def test_gradient_checkpointing_trains_the_same_model(experiment: Experiment, tmp_path: Path) -> None:
    """Dropout is on in adapters and retriever, and the loop chooses the kernels."""
    weights = []
    for value in ("false", "true"):
        changed = experiment.with_settings([f"generator.gradient_checkpointing={value}", "data.test="])
        with plain_descent():
            run_experiment(changed, tmp_path / value)
        opened = open_run(tmp_path / value).model.generator
        weights.append({name: weight for name, weight in opened.named_parameters() if ".lora_" in name})
    plain, again = weights
    untrained = dict(build_model(experiment, *_data(experiment)).generator.named_parameters())
    assert plain.keys() == again.keys()
    for name, weight in plain.items():
        torch.testing.assert_close(again[name], weight, rtol=0, atol=TOLERANCE, msg=name)
        assert not torch.equal(weight, untrained[name])


def _data(experiment: Experiment):
    return experiment.data.load(0), torch.Generator().manual_seed(experiment.seed)


def test_the_schedule_is_the_main_stages_and_the_warm_start_keeps_the_linear_one(experiment: Experiment) -> None:
    changed = experiment.with_settings(["training.schedule=constant", "training.warmup=0.0"])
    warm, main = build_stages(changed, build_model(changed, *_data(changed)), torch.Generator())
    assert (warm.pace.schedule, main.pace.schedule) == ("linear", "constant")
    assert Experiment.from_mapping(json.loads(changed.to_json()), "here") == changed


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["training.schedule=cosinus"], "expected one of 'linear', 'constant', 'cosine', 'cosine with restarts'"),
        (["training.schedule=cosine with restarts"], "training: schedule .* needs restarts; set it to 1"),
        (["training.restarts=2"], 'restarts belongs to schedule = "cosine with restarts", but schedule is "linear"'),
        (
            ["generator.gradient_checkpointing=true", "generator.dropout=false"],
            "generator: gradient checkpointing needs dropout: set generator.dropout = true",
        ),
        (["generator.quantisation=int8"], "quantisation is 'int8'; expected one of 'none', 'nf4'"),
    ],
)
def test_settings_that_make_no_sense_say_so(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Experiment().with_settings(assignments)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
@pytest.mark.parametrize(
    ("rank", "message"),
    [(2, r'generator\.quantisation = "nf4" needs a CUDA device'), (0, r"but generator\.lora_rank is 0")],
)
def test_a_quantised_run_that_cannot_be_is_refused_before_anything_is_written(
    rank: int, message: str, experiment: Experiment, tmp_path: Path
) -> None:
    quantisation: Quantisation = "nf4"
    changed = experiment.with_settings([f"generator.quantisation={quantisation}", f"generator.lora_rank={rank}"])
    assert changed.generator.quantisation == quantisation
    with pytest.raises(UserError, match=message):
        run_experiment(changed, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_quantised_model_opens_it_as_it_was_trained(experiment: Experiment, tmp_path: Path) -> None:
    """The folder of the generator decides, whatever the settings beside it: here it asks for what cannot be had."""
    run_experiment(experiment, tmp_path / "run")
    path = tmp_path / "run" / "model" / "generator" / "generator.json"
    settings = json.loads(path.read_text())
    assert settings["quantisation"] == "none"
    path.write_text(json.dumps(settings | {"quantisation": "nf4"}))
    with pytest.raises(UserError, match=r"nf4.*(CUDA device|bitsandbytes)"):
        open_run(tmp_path / "run")
