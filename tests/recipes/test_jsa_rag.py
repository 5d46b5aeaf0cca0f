"""JSA-RAG's recipes: what is published is what the code says; every row of the comparison runs on tiny models."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from retrograd.experiments.run import run_experiment
from retrograd.recipes import RECIPES
from retrograd.recipes.jsa_rag import DATA, PUBLISHED
from retrograd.recipes.jsa_rag import ROWS as PUBLISHED_ROWS
from retrograd.util.text_files import read_json

PASSAGES = [("cup", "the cup holds tea ."), ("box", "the box holds rain ."), ("car", "the wheel of the car .")]
QUESTIONS = [("what holds tea ?", "cup"), ("what holds rain ?", "box"), ("what of car ?", "wheel")]
ROWS = {
    "closed book": ["objective.kind=NoRetrieval", "training.passages=0", "second_stage.epochs=0"],
    "frozen": ["objective.kind=FrozenRetriever"],
    "RAG": ["objective.kind=TopKMarginal"],
    "VRAG": ["objective.kind=Variational", "objective.form=published"],
    "JSA, metropolis": ["objective.sampler=metropolis", "objective.draws=2"],
    "JSA, exact": [],
}


def write(path: Path, records: list[dict]) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", DATA)
def test_the_published_form_has_every_known_setting(name: str) -> None:
    values = RECIPES[f"jsa-rag-{name}"]().to_mapping()
    for setting, known in PUBLISHED.items():
        section, _, key = setting.partition(".")
        table = values[section]
        assert isinstance(table, dict)
        assert table[key] == known, setting


@pytest.mark.parametrize("name", DATA)
def test_rows_of_the_published_form_differ_in_the_objective_alone(name: str) -> None:
    recipe = RECIPES[f"jsa-rag-{name}"]()
    for row, changes in PUBLISHED_ROWS.items():
        changed = recipe.with_settings(changes)
        assert replace(changed, objective=recipe.objective) == recipe, row
        assert (changed.objective == recipe.objective) == (row == "JSA"), row


@pytest.mark.parametrize("row", [row for row in PUBLISHED_ROWS if row != "VRAG"])
def test_the_published_form_normalises_over_the_candidates_in_every_row(row: str) -> None:
    """VRAG's has no such setting: its KL is over the candidates by definition."""
    changed = RECIPES["jsa-rag-nq"]().with_settings(PUBLISHED_ROWS[row])
    assert vars(changed.objective)["normaliser"] == "candidates"


PAIRS = [(kind, generator) for kind in ("questions", "dialogue") for generator in ("tiny_causal", "tiny_seq2seq")]
ONCE = {(*PAIRS[number % len(PAIRS)], row) for number, row in enumerate(ROWS)}
"""Every row once, and every kind of data with every kind of generator."""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "generator", "row"),
    [
        pytest.param(*pair, row, marks=[] if (*pair, row) in ONCE else [pytest.mark.sweep])
        for pair in PAIRS
        for row in ROWS
    ],
)
def test_every_row_trains_in_all_its_stages_and_answers(
    kind: str, generator: str, row: str, tiny_encoder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    base = write(tmp_path / "base.jsonl", [{"id": key, "title": key, "text": text} for key, text in PASSAGES])
    asked = [
        {
            "id": f"q{i}",
            "question": text,
            "history": [f"user: {text}"],
            "answer": answer,
            "gold_passages": [PASSAGES[i][0]],
        }
        for i, (text, answer) in enumerate(QUESTIONS)
    ]
    if kind == "dialogue":
        for record in asked:
            del record["question"]
    found = write(tmp_path / "asked.jsonl", asked)
    files = [
        f"data.base={base}",
        *(f"data.{part}={found}" for part in ("train", "test")),
        "data.dev=",
        "data.dev_count=0",
    ]
    models = [f"retriever.model={tiny_encoder}", f"generator.model={request.getfixturevalue(generator)}"]
    smaller = ["training.epochs=1", "training.passages=2", "warm_start.passages=2", "generator.max_target_tokens=4"]
    experiment = RECIPES[f"jsa-rag-small-{kind}"]().with_settings(
        [*files, *models, *smaller, "training.precision=fp32", *ROWS[row]]
    )
    run = run_experiment(experiment, tmp_path / "run")
    scores = read_json(run.path / "scores.json")
    assert isinstance(scores, dict)
    answers, neighbours = scores["answers"], scores["neighbours"]
    assert isinstance(answers, dict)
    assert isinstance(neighbours, dict)
    assert "f1" in answers
    signatures = scores["signatures"]
    assert isinstance(signatures, dict)
    assert "version:" in str(signatures["bleu"])
    assert ("gold_recall@1" in neighbours) == (row != "closed book")


@pytest.mark.slow
@pytest.mark.parametrize(("name", "row"), [*(("nq", row) for row in PUBLISHED_ROWS), ("orquac", "JSA")])
def test_every_published_row_trains_and_answers_on_tiny_models(
    name: str, row: str, tiny_encoder: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    base = write(tmp_path / "base.jsonl", [{"id": key, "title": key, "text": text} for key, text in PASSAGES])
    asked = [{"id": f"q{i}", "question": text, "answer": answer} for i, (text, answer) in enumerate(QUESTIONS)]
    found = write(tmp_path / "asked.jsonl", asked)
    files = [f"data.base={base}", f"data.train={found}", f"data.test={found}", "data.dev=", "data.base_format=jsonl"]
    models = [f"retriever.model={tiny_encoder}", f"generator.model={tiny_causal}"]
    smaller = ["training.epochs=1", "training.passages=2", "generator.max_target_tokens=4", "training.precision=fp32"]
    experiment = RECIPES[f"jsa-rag-{name}"]().with_settings([*files, *models, *smaller, *PUBLISHED_ROWS[row]])
    run = run_experiment(experiment, tmp_path / "run")
    scores = read_json(run.path / "scores.json")
    assert isinstance(scores, dict)
    assert isinstance(scores["answers"], dict)
    assert "f1" in scores["answers"]
