"""RAG4RE's recipes: all four data sets end to end on tiny models; no answer ever depends on a test label."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.sign_models import SignModels
from typer.testing import CliRunner

from retrograd.__main__ import app
from retrograd.experiments.build import build_model
from retrograd.experiments.experiment import Experiment
from retrograd.experiments.run import run_experiment, train_experiment
from retrograd.recipes import RECIPES
from retrograd.recipes.rag4re import DATA, MODELS, improved, known_settings, published, semeval
from retrograd.util.text_files import read_json, read_jsonl

TACRED_LIKE = Path(__file__).parents[2] / "examples" / "tacred_like"
FROZEN = ["retriever.trained=none", "training.distraction=0.0"]
SENTENCES = (
    ("The <e1>storm</e1> flooded the <e2>cellar</e2>.", "Cause-Effect(e1,e2)"),
    ("The <e1>cellar</e1> was flooded after a <e2>storm</e2>.", "Cause-Effect(e2,e1)"),
    ("She keeps the <e1>letters</e1> in a <e2>drawer</e2>.", "Content-Container(e1,e2)"),
    ("The <e1>drawer</e1> is full of <e2>letters</e2>.", "Content-Container(e2,e1)"),
    ("The <e1>handle</e1> of the <e2>drawer</e2> came off.", "Component-Whole(e1,e2)"),
    ("A <e1>letter</e1> came the day the <e2>storm</e2> ended.", "Other"),
)


def semeval_like(path: Path) -> Path:
    """Sentences of our own in the official layout."""
    blocks = [f'{i}\t"{text}"\n{label}\nComment:\n' for i, (text, label) in enumerate(SENTENCES, 1)]
    path.write_text("\n".join(blocks), encoding="utf-8")
    return path


def files(data: str, folder: Path) -> dict[str, object]:
    if data == "semeval":
        place = semeval_like(folder / "semeval.txt")
        return {"data.train": place, "data.test": place, "data.format": "semeval"}
    found: dict[str, object] = {f"data.{part}": TACRED_LIKE / f"{part}.json" for part in ("train", "dev", "test")}
    for part in ("train", "dev", "test"):
        if getattr(DATA[data], f"{part}_patch"):
            found[f"data.{part}_patch"] = TACRED_LIKE / f"{data}_{part}.json"
    return found


def tiny(data: str, encoder: Path, generator: Path, modules: str, folder: Path) -> list[str]:
    """Fewer, with smaller models, everything else as in the recipe."""
    smaller = {
        **files(data, folder),
        "retriever.model": encoder,
        "generator.model": generator,
        "generator.lora_modules": modules,
        "generator.quantisation": "none",
        "training.epochs": 1,
        "training.precision": "fp32",
        "training.batch_size": 16,
    }
    return [f"{name}={value}" for name, value in smaller.items()]


FORMS = [(model, form) for model in ("t5-large", "mistral-7b") for form in ("", "-published")]
ONCE = {(data, *FORMS[number % len(FORMS)]) for number, data in enumerate(DATA)}
"""Every data set once, and every kind of model in both forms."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("data", "model", "form"),
    [
        pytest.param(data, *form, marks=[] if (data, *form) in ONCE else [pytest.mark.sweep])
        for data in DATA
        for form in FORMS
    ],
)
def test_recipes_run_end_to_end_on_tiny_models(
    data: str, model: str, form: str, sign_models: SignModels, sign_llama: Path, tmp_path: Path
) -> None:
    generator, modules = (sign_models.generator, '["q"]') if model == "t5-large" else (sign_llama, '["q_proj"]')
    run = tmp_path / "run"
    settings = [
        word for one in tiny(data, sign_models.encoder, generator, modules, tmp_path) for word in ("--set", one)
    ]
    result = CliRunner().invoke(app, ["train", f"rag4re-{data}-{model}{form}", "--out", str(run), *settings])
    assert result.exit_code == 0, result.output
    scores = read_json(run / "scores.json")
    assert isinstance(scores, dict)
    answers = scores["answers"]
    assert isinstance(answers, dict)
    assert {"macro_f1", "micro_f1", "invalid_rate", "refined_rate"} <= set(answers)
    assert (answers["invalid_rate"] == 0) == (form == "")  # untrained, it writes no label
    assert (run / "model" / "generator" / "adapter_model.safetensors").exists()
    first = next(line for _, line in read_jsonl(run / "predictions.jsonl"))
    rows = first["rows"]
    assert isinstance(rows, list)
    assert len(rows) == (1 if form else 3)


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("rag4re-") and "published" in name])
def test_the_published_form_has_every_known_setting(name: str) -> None:
    values = RECIPES[name]().to_mapping()
    for setting, known in RECIPES[name].published.items():
        section, _, key = setting.partition(".")
        table = values[section]
        assert isinstance(table, dict)
        assert table[key] == known, setting


def test_known_settings_are_those_of_the_paper() -> None:
    """Written out once more: T5-Large, and QLoRA for the 7B models."""
    t5, mistral = known_settings("t5-large"), known_settings("mistral-7b")
    assert [t5[f"generator.lora_{name}"] for name in ("rank", "alpha", "dropout")] == [4, 32.0, 0.01]
    assert [t5[f"training.{name}"] for name in ("epochs", "batch_size", "generator_learning_rate")] == [1, 8, 5e-5]
    assert t5["generator.lora_modules"] == ["q", "k", "v", "o"]
    assert [mistral[f"generator.lora_{name}"] for name in ("rank", "alpha", "dropout")] == [8, 32.0, 0.1]
    assert [mistral[f"training.{name}"] for name in ("epochs", "batch_size", "weight_decay")] == [5, 4, 1e-3]
    assert mistral["generator.quantisation"] == "nf4"
    assert not any(name.startswith("training.epochs") for name in known_settings("qwen3-4b"))
    assert "generator.model" not in mistral  # which checkpoint the paper fine-tuned is not known
    told = {name: " ".join(RECIPES[f"rag4re-semeval-{name}"].deviations) for name in MODELS}
    assert [name for name, words in told.items() if "restarts" in words] == ["llama-2-7b", "mistral-7b"]
    assert set(MODELS) == {"t5-large", "flan-t5-large", "llama-2-7b", "mistral-7b", "qwen3-4b"}


def test_a_frozen_retriever_under_the_same_prompt_is_one_changed_setting() -> None:
    trained, frozen = semeval(), semeval().with_settings(["retriever.trained=none"])
    differs = [key for key, value in trained.to_mapping().items() if frozen.to_mapping()[key] != value]
    assert differs == ["retriever"]
    assert improved("tacred", "t5-large").data.input_style == published("tacred", "t5-large").data.input_style


@pytest.mark.parametrize("search", ["bm25", "random"])
def test_another_retriever_is_one_changed_setting_against_the_frozen_one(search: str) -> None:
    for frozen in (published("tacred", "t5-large"), semeval().with_settings(FROZEN)):
        other = frozen.with_settings([f"retriever.search={search}"])
        assert other.retriever == replace(frozen.retriever, search=search)
        assert replace(other, retriever=frozen.retriever) == frozen


JOINT = (["TopKMarginal"], ["JointStochasticApproximation", "objective.sampler=metropolis"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objective", "name"),
    [
        (JOINT[0], "t5-large"),
        (JOINT[1], "mistral-7b"),
        pytest.param(JOINT[1], "t5-large", marks=pytest.mark.sweep),
        pytest.param(JOINT[0], "mistral-7b", marks=pytest.mark.sweep),
    ],
)
def test_the_papers_frozen_retriever_becomes_trainable_end_to_end(
    objective: list[str], name: str, sign_models: SignModels, sign_llama: Path, tmp_path: Path
) -> None:
    """Its published recipe, with the objective changed: retriever and adapter both move."""
    generator, modules = (sign_models.generator, '["q"]') if name == "t5-large" else (sign_llama, '["q_proj"]')
    joint = ["retriever.trained=both", "training.passages=3", "training.retriever_learning_rate=1e-3"]
    joint += [f"objective.kind={objective[0]}", *objective[1:]]
    if objective[1:]:
        joint.append("retriever.posterior=true")
    found = published("semeval", name).with_settings(
        [*tiny("semeval", sign_models.encoder, generator, modules, tmp_path), *joint]
    )
    data = found.data.load(found.seed)
    before = build_model(found, data, torch.Generator()).retriever.state_dict()
    model = train_experiment(found, data, tmp_path / "run").model
    after = model.retriever.state_dict()
    assert {name.partition(".")[0] for name, weight in after.items() if not torch.equal(before[name], weight)} == {
        "query_encoder",
        "passage_encoder",
    }
    adapters = [weight for name, weight in model.generator.model.state_dict().items() if "lora_B" in name]
    assert adapters
    assert all(float(weight.abs().max()) > 0 for weight in adapters)  # they begin at zero


@pytest.mark.slow
@pytest.mark.parametrize("answers", ["chosen", "written"])
def test_no_answer_depends_on_a_test_label(
    answers: str, sign_models: SignModels, sign_llama: Path, tmp_path: Path
) -> None:
    """Training and answering anew with the test labels exchanged gives the same answers, to the digit."""
    records = [json.loads(line) for line in _jsonl(tmp_path / "train.jsonl").read_text().splitlines()]
    labels = [record["relation"] for record in records]
    random.Random(0).shuffle(labels)
    exchanged = [record | {"relation": label} for record, label in zip(records, labels, strict=True)]
    (tmp_path / "exchanged.jsonl").write_text("".join(json.dumps(one) + "\n" for one in exchanged), encoding="utf-8")
    told = []
    for name in ("train", "exchanged"):
        settings = tiny("semeval", sign_models.encoder, sign_llama, '["q_proj"]', tmp_path)
        experiment: Experiment = RECIPES["rag4re-semeval-mistral-7b"]().with_settings(
            [
                *settings,
                f"data.train={tmp_path / 'train.jsonl'}",
                f"data.test={tmp_path / name}.jsonl",
                "data.format=jsonl",
                f"evaluation.answers={answers}",
            ]
        )
        run_experiment(experiment, tmp_path / f"{name}-run")
        lines = [dict(line) for _, line in read_jsonl(tmp_path / f"{name}-run" / "predictions.jsonl")]
        told.append([{key: value for key, value in line.items() if key != "gold"} for line in lines])
    assert told[0] == told[1]
    assert labels != [record["relation"] for record in records]


def _jsonl(path: Path) -> Path:
    lines = []
    for text, label in SENTENCES:
        plain = text.replace("<e1>", "").replace("</e1>", "").replace("<e2>", "").replace("</e2>", "")
        head, tail = (text.split(f"<{mark}>")[1].split(f"</{mark}>")[0] for mark in ("e1", "e2"))
        spans = [[plain.index(one), plain.index(one) + len(one)] for one in (head, tail)]
        lines.append(json.dumps({"text": plain, "head": spans[0], "tail": spans[1], "relation": label}))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
