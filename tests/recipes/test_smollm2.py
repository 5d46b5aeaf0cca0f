"""SmolLM2's recipes: rows of a task differ in their retrieval alone, and train on a tiny model in its place."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.recipes.test_rag4re import semeval_like

from retrograd.experiments.run import run_experiment
from retrograd.recipes import RECIPES
from retrograd.recipes.smollm2 import ROWS
from retrograd.util.text_files import read_json

TASKS = ("questions", "dialogue", "semeval")
PASSAGES = [("cup", "the cup holds tea ."), ("box", "the box holds rain ."), ("car", "the wheel of the car .")]
QUESTIONS = [("what holds tea ?", "cup"), ("what holds rain ?", "box"), ("what of car ?", "wheel")]


def test_every_recipe_is_listed() -> None:
    assert {make().name for make in ROWS} == {name for name in RECIPES if name.startswith("smollm2-")}


@pytest.mark.parametrize("task", TASKS)
def test_rows_differ_in_retrieval_alone(task: str) -> None:
    joint, frozen, no_retrieval = (RECIPES[f"smollm2-{task}-{row}"]() for row in ("joint", "frozen", "no-retrieval"))
    assert joint.generator.model == "builtin:smollm2"
    assert joint.generator.lora_rank == 8
    for other in (frozen, no_retrieval):
        assert (other.data, other.generator, other.seed) == (joint.data, joint.generator, joint.seed)
        same = replace(joint.training, passages=other.training.passages, distraction=other.training.distraction)
        assert other.training == same
    assert frozen.training.passages == joint.training.passages
    assert no_retrieval.training.passages == 0
    assert (frozen.retriever.trained, no_retrieval.retriever.trained) == ("none", "none")


def _files(task: str, folder: Path) -> list[str]:
    if task == "semeval":
        place = semeval_like(folder / "semeval.txt")
        return [f"data.train={place}", f"data.test={place}", "data.format=semeval"]
    base = [{"id": key, "title": key, "text": text} for key, text in PASSAGES]
    field = "question" if task == "questions" else "history"
    pairs = [
        {"id": f"q{i}", field: text if task == "questions" else [f"user: {text}"], "answer": answer}
        for i, (text, answer) in enumerate(QUESTIONS)
    ]
    for name, records in (("base", base), ("pairs", pairs)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records), encoding="utf-8")
    return [
        f"data.base={folder / 'base.jsonl'}",
        *(f"data.{part}={folder / 'pairs.jsonl'}" for part in ("train", "test")),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "row"),
    [
        pytest.param(task, row, marks=[] if row == "joint" else [pytest.mark.sweep])
        for task in TASKS
        for row in ("joint", "frozen", "no-retrieval")
    ],
)
def test_rows_train_and_answer(task: str, row: str, tiny_encoder: Path, tiny_causal: Path, tmp_path: Path) -> None:
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_causal}", "training.precision=fp32"]
    fewer = ["data.train_count=0", "data.test_count=0"]
    if row != "no-retrieval":
        fewer.append("training.passages=2")
    experiment = RECIPES[f"smollm2-{task}-{row}"]().with_settings([*_files(task, tmp_path), *models, *fewer])
    run = run_experiment(experiment, tmp_path / "run")
    scores = read_json(run.path / "scores.json")
    assert isinstance(scores, dict)
    assert scores["answers"]
    assert bool(scores["neighbours"]) == (row != "no-retrieval")
    assert (run.path / "model" / "generator" / "adapter_model.safetensors").is_file()
